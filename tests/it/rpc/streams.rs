//! A stream that ends by itself is an answer: its result is recorded before it reaches the client.

use axum::body::Body;
use axum::response::IntoResponse as _;
use http::Request;
use testkit::lab::time::{HOUR, SECOND};
use testkit::lab::{Lab, at_once, frames, no_run_is_left, post, rerun, settle};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{Keep, OnInFlight, Release, Secret, Unsure};

use super::{
    Feed, PROGRESS, Reader, assert_error, error, event, events, json, mcp, mcp_over, only_event, pay, result, stream,
    streaming, with,
};

#[tokio::test]
async fn a_stream_of_one_event_is_recorded_and_replayed_in_the_form_that_the_client_takes() {
    let lab = streaming(mcp(), Body::from(event(&result("1", 1))));
    let first = lab.send(pay("1")).await;
    assert_eq!(
        (first.header("content-type"), first.header("mcp-session-id")),
        (Some("text/event-stream"), Some("old"))
    );
    assert_eq!((only_event(&first)["result"]["effect"].clone(), first.is_replay()), (1.into(), false));
    let again = lab.send(pay("\"two\"")).await;
    assert_eq!((again.header("content-type"), again.header("mcp-session-id")), (Some("text/event-stream"), None));
    assert_eq!((again.text(), again.is_replay()), (&*event(&result("\"two\"", 1)), true));
    let again = lab.send(with(pay("3.0"), "accept", "application/json")).await;
    assert_eq!((again.header("content-type"), again.text()), (Some("application/json"), &*result("3.0", 1)));
    assert!(again.is_replay() && lab.effects() == 1);
}

#[tokio::test]
async fn what_comes_before_the_result_goes_through_and_the_result_waits_for_its_record() {
    // The record is not made yet; it is made, and the store has not said so.
    for hold in [TestStore::stall, TestStore::hold_answers] {
        let (store, (feed, body)) = (TestStore::new(), Feed::new());
        let lab = streaming(mcp_over(store.clone()), body);
        let held = hold(&store, StoreCall::Complete);
        feed.say(PROGRESS);
        let mut client = Reader::open(&lab, pay("1")).await;
        assert_eq!(client.head.headers["content-type"], "text/event-stream");
        assert_eq!(client.next().await.as_deref(), Some(PROGRESS));
        assert!(client.waits().await);
        feed.say(": ping\n\n");
        assert_eq!(client.next().await.as_deref(), Some(": ping\n\n"), "while the run goes on");
        // A part of an event is held back, too.
        let whole = event(&result("1", 1));
        let (part, rest) = whole.split_at(60);
        feed.say(part);
        assert!(client.waits().await);
        feed.say(rest);
        assert!(client.waits().await, "the result is not durable");
        let again = lab.send(pay("2")).await;
        assert_error(&again, "2", -32060, "in-flight", "pending;retry");
        assert!(client.waits().await);
        drop(held);
        assert_eq!(client.next().await, Some(whole));
        assert_eq!(client.next().await, None);
        let again = lab.send(pay("2")).await;
        assert_eq!((again.text(), again.is_replay()), (&*event(&result("2", 1)), true), "the result alone");
    }
}

#[tokio::test]
async fn no_event_is_lost_that_comes_together_with_the_result() {
    let last = event(&result("1", 1));
    for layer in [mcp(), mcp().max_stream(HOUR)] {
        let all = [PROGRESS, PROGRESS, &last].concat();
        let lab = streaming(layer, Body::from(all.clone()));
        assert_eq!(lab.send(pay("1")).await.text(), all);
    }
    let lab = streaming(rerun().max_stream(HOUR), frames([Ok("data: a\n\ndata: b\n\n"), Ok("data: c\n\n")]));
    assert_eq!(lab.post("k", "a").await.text(), "data: a\n\ndata: b\n\ndata: c\n\n");
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_gets_the_result_later() {
    for reads in [false, true] {
        let (layer, (feed, body)) = (mcp_over(TestStore::new()), Feed::new());
        let lab = streaming(layer.clone(), body);
        let mut asking = Box::pin(Reader::open(&lab, pay("1")));
        assert!(at_once(&mut asking).is_none());
        if reads {
            feed.say(PROGRESS);
            assert_eq!(asking.await.next().await.as_deref(), Some(PROGRESS));
        } else {
            drop(asking);
        }
        settle().await;
        feed.say(PROGRESS);
        feed.say(&event(&result("1", 1)));
        no_run_is_left(&layer).await;
        let again = lab.send(pay("2")).await;
        assert_eq!((again.text(), again.is_replay()), (&*event(&result("2", 1)), true));
        assert_eq!(lab.effects(), 1);
    }
}

#[tokio::test]
async fn a_duplicate_waits_for_the_result_of_a_stream() {
    let (feed, body) = Feed::new();
    let lab = streaming(mcp().on_in_flight(OnInFlight::Wait(HOUR)), body);
    feed.say(PROGRESS);
    let first = Reader::open(&lab, pay("1")).await;
    let waiter = lab.spawn(with(pay("\"b\""), "accept", "application/json"));
    settle().await;
    feed.say(&event(&result("1", 1)));
    assert_eq!(first.rest().await, [PROGRESS, &event(&result("1", 1))].concat());
    let waited = waiter.await.unwrap();
    assert_eq!((waited.text(), waited.is_replay()), (&*result("\"b\"", 1), true));
}

#[tokio::test]
async fn a_stream_is_read_however_its_lines_end_and_its_frames_are_cut() {
    for end in ["\n", "\r\n", "\r"] {
        let lines = [
            "\u{feff}: a comment",
            "",
            "id: 1",
            "retry: 3000",
            "data: ",
            "",
            "event: message",
            r#"data: {"jsonrpc":"2.0","method":"ping","id":9}"#,
            "",
            r#"data:{"jsonrpc":"2.0","#,
            r#"data: "id":1,"#,
            r#"data: "result":{"s":"a\nb"}}"#,
            "",
            "",
        ];
        let text: &'static str = lines.join(end).leak();
        for length in [1, 2, 3, 7, 1_000] {
            let chunks = text.as_bytes().chunks(length).map(|chunk| Ok::<_, std::io::Error>(chunk));
            let lab = streaming(mcp(), Body::from_stream(futures_util::stream::iter(chunks)));
            let first = lab.send(pay("1")).await;
            let events = events(first.text());
            assert_eq!((&*events[0], events.len()), ("", 3), "{end:?} {length}: {events:?}");
            assert!(events[1].contains("ping") && first.text().contains("retry: 3000"), "{events:?}");
            let again = lab.send(with(pay("2"), "accept", "application/json")).await;
            let text = again.text().replace('\n', "");
            assert_eq!((&*text, again.is_replay()), (r#"{"jsonrpc":"2.0","id":2,"result":{"s":"a\nb"}}"#, true));
        }
    }
}

#[tokio::test]
async fn a_result_without_its_last_blank_line_is_one_all_the_same() {
    for cut in ["data: RESULT\n", "data: RESULT", "data: RESULT\r\n", ": ping\n\ndata: RESULT\r"] {
        let lab = streaming(mcp(), Body::from(cut.replace("RESULT", &result("1", 1))));
        // Clients read no event before its blank line.
        let first = lab.send(pay("1")).await;
        assert!(first.text().ends_with(&event(&result("1", 1))), "{cut:?}: {}", first.text());
        assert!(lab.send(pay("2")).await.is_replay(), "{cut:?}");
    }
    // A stream may also be of no one event, whose type is another one.
    let lab = streaming(mcp(), Body::from(format!("event: other\ndata: {}\n\n", result("1", 1))));
    assert_eq!(lab.send(pay("1")).await.text(), event(&result("1", 1)));
}

#[tokio::test]
async fn a_stream_that_stays_open_ends_with_its_result() {
    let (feed, body) = Feed::new();
    let lab = streaming(mcp(), body);
    feed.say(&event(&result("1", 1)));
    assert_eq!(Reader::open(&lab, pay("1")).await.rest().await, event(&result("1", 1)));
    assert!(lab.send(pay("2")).await.is_replay());
    drop(feed);
}

#[tokio::test]
async fn a_stream_that_declares_its_length_is_none_that_was_cut() {
    for before in ["", PROGRESS] {
        let text = format!("{before}data:{}\r\n\r\n", result("1", 1));
        let lab = Lab::new(mcp(), move |_| {
            let text = text.clone();
            async move { ([("content-length", text.len().to_string())], stream(Body::from(text))).into_response() }
        });
        let first = lab.send(pay("1")).await;
        let length = first.text().len().to_string();
        assert!(first.header("content-length").is_none_or(|declared| declared == length), "{first:?}");
        let again = lab.send(pay("2")).await;
        assert_eq!((again.text(), again.is_replay()), (&*event(&result("2", 1)), true));
    }
}

#[tokio::test]
async fn a_result_in_a_stream_means_what_it_means_by_itself() {
    let failed = r#"{"jsonrpc":"2.0","id":1,"result":{"isError":true,"content":[]}}"#.to_owned();
    for (result, runs, says) in [
        (failed, 1, ""),
        (error("1", 7), 1, ""),
        (error("1", -32603), 1, ""),
        (error("1", -32602), 2, "none;retry=?0"),
        (error("null", -32601), 2, "none;retry=?0"),
    ] {
        let lab = streaming(mcp(), Body::from(event(&result)));
        let first = lab.send(pay("1")).await;
        assert_eq!((first.text(), super::effect(&first)), (&*event(&result), says));
        assert_eq!((lab.send(pay("2")).await.is_replay(), lab.effects()), (runs == 1, runs), "{result}");
    }
}

#[tokio::test]
async fn a_mark_on_a_stream_wins() {
    for (mark, effects, slug) in [("release", 2, ""), ("unsure", 1, "outcome-unknown")] {
        let lab = Lab::new(mcp(), move |number| async move {
            let answer = if number == 1 {
                stream(Body::from(event(&result("1", 1))))
            } else {
                json(result("1", 2)).into_response()
            };
            if mark == "release" { (Release, answer).into_response() } else { (Unsure, answer).into_response() }
        });
        assert_eq!(lab.send(pay("1")).await.text(), event(&result("1", 1)));
        let again = lab.send(pay("2")).await;
        assert_eq!(lab.effects(), effects, "{mark}");
        if !slug.is_empty() {
            assert_error(&again, "2", -32060, slug, "unknown;retry=?0");
        }
    }
    for secret in [false, true] {
        let lab = Lab::new(mcp(), move |_| async move {
            let answer = stream(Body::from(event(&result("1", 1))));
            if secret { (Secret, answer).into_response() } else { (Keep, answer).into_response() }
        });
        assert_eq!(lab.send(pay("1")).await.text(), event(&result("1", 1)));
        let again = lab.send(pay("2")).await;
        assert_error(&again, "2", -32060, "not-replayable", "done;status=200;retry=?0");
        assert_eq!(lab.effects(), 1);
    }
}

/// A charge that is answered by a stream of another kind, such as tokens.
fn tokens(body: Body) -> Lab {
    streaming(testkit::lab::layer().max_stream(HOUR), body)
}

#[tokio::test]
async fn the_last_event_of_any_other_stream_is_held_back_and_recorded() {
    let (store, (feed, body)) = (TestStore::new(), Feed::new());
    let lab = streaming(tower_idempotency::IdempotencyLayer::new(store.clone()).max_stream(SECOND * 60), body);
    let held = store.stall(StoreCall::Complete);
    feed.say("data: a\n\n");
    feed.say("data: b\n\n");
    let mut client = Reader::open(&lab, post("k", "a")).await;
    assert_eq!(client.next().await.as_deref(), Some("data: a\n\n"));
    assert!(client.waits().await, "the last one may be the result");
    // A comment does not make it another one than the last.
    feed.say(": ping\n\n");
    assert_eq!(client.next().await.as_deref(), Some(": ping\n\n"));
    assert!(client.waits().await);
    feed.say("id: 7\nda");
    feed.say("ta: c\n\n");
    assert_eq!(client.next().await.as_deref(), Some("data: b\n\n"));
    drop(feed);
    assert!(client.waits().await, "it is not durable");
    drop(held);
    assert_eq!(client.rest().await, "id: 7\ndata: c\n\n");
    let again = lab.send(post("k", "a")).await;
    assert_eq!((again.text(), again.header("content-type")), ("id: 7\ndata: c\n\n", Some("text/event-stream")));
    assert!(again.is_replay());
    // Nothing of it is JSON-RPC's.
    assert_eq!(lab.send(post("k", "b")).await.problem(), "key-reused");
}

#[tokio::test]
async fn what_follows_the_last_event_belongs_to_it() {
    for (text, recorded) in [
        ("data: a\n\ndata: b\n\n: bye", "data: b\n\n: bye"),
        ("data: a\n\ndata: b", "data: a\n\ndata: b"),
        ("data: b", "data: b"),
        ("data: a\r\rdata: b\r\r", "data: a\r\rdata: b\r\r"),
        (": ping\n\n", ""),
        ("", ""),
    ] {
        let lab = tokens(Body::from(text));
        assert_eq!(lab.post("k", "a").await.text(), text);
        let again = lab.post("k", "a").await;
        assert_eq!((again.text(), again.is_replay()), (recorded, true), "{text:?}");
    }
}

#[tokio::test]
async fn without_the_option_a_stream_is_passed_on_and_not_recorded() {
    for layer in [testkit::lab::layer(), mcp().max_stream(std::time::Duration::ZERO)] {
        let (feed, body) = Feed::new();
        let lab = streaming(layer, body);
        feed.say("data: a\n\n");
        let request = || -> Request<Body> { with(pay("1"), "idempotency-key", "k") };
        let mut client = Reader::open(&lab, request()).await;
        assert_eq!(client.next().await.as_deref(), Some("data: a\n\n"), "its last event, too");
        drop(feed);
        assert_eq!(client.next().await, None);
        let again = lab.send(request()).await;
        assert_eq!(super::effect(&again), "done;status=200;retry=?0", "{}", again.text());
        assert_eq!(lab.effects(), 1);
    }
}
