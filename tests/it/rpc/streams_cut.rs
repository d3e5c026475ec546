//! A stream that is too long or breaks off is no answer, and its client does not wait for ever.

use axum::body::Body;
use testkit::Answer;
use testkit::lab::time::{HOUR, SECOND};
use testkit::lab::{Lab, layer, settle};
use tokio::time::{Instant, advance};
use tower_idempotency::OnInterrupted;
use tower_idempotency::test_util::{StoreCall, TestStore};

use super::{Feed, PROGRESS, Reader, assert_error, event, events, json, mcp, mcp_over, pay, result, streaming};

/// The message in the last event.
fn last(text: &str) -> serde_json::Value {
    serde_json::from_str(events(text).last().unwrap()).unwrap()
}

/// Asserts that a retry is told that the answer is not stored.
async fn assert_not_replayable(lab: &Lab) -> Answer {
    let again = lab.send(pay("2")).await;
    assert_error(&again, "2", -32060, "not-replayable", "done;status=200;retry=?0");
    assert_eq!(lab.effects(), 1);
    again
}

#[tokio::test]
async fn a_stream_with_too_many_bytes_is_passed_on_whole() {
    for most in [0, 1, PROGRESS.len(), PROGRESS.len() * 2 - 1] {
        let (feed, body) = Feed::new();
        let lab = streaming(mcp().max_stream_bytes(most), body);
        feed.say(PROGRESS);
        feed.say(PROGRESS);
        let mut client = Reader::open(&lab, pay("1")).await;
        let mut read = String::new();
        while read.len() < PROGRESS.len() * 2 {
            read.push_str(&client.next().await.unwrap());
        }
        assert_not_replayable(&lab).await;
        feed.say(&event(&result("1", 1)));
        drop(feed);
        read.push_str(&client.rest().await);
        assert_eq!(read, [PROGRESS, PROGRESS, &event(&result("1", 1))].concat(), "{most}");
    }
    // Exactly as many are not too many.
    let all = [PROGRESS, &event(&result("1", 1))].concat();
    let chunks = || all.as_bytes().chunks(9).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>();
    for (most, is_replay) in [(all.len(), true), (all.len() - 9, false)] {
        let lab = streaming(mcp().max_stream_bytes(most), Body::from_stream(futures_util::stream::iter(chunks())));
        assert_eq!(lab.send(pay("1")).await.text(), all);
        assert_eq!(lab.send(pay("2")).await.is_replay(), is_replay, "{most}");
    }
}

#[tokio::test]
async fn a_result_that_is_too_long_to_be_kept_is_passed_on() {
    let text = event(&result("1", 1));
    let lab = streaming(mcp().max_response_body(10), Body::from(text.clone()));
    assert_eq!(lab.send(pay("1")).await.text(), text);
    assert_not_replayable(&lab).await;
}

// A client may find its result in it before it is durable.
#[tokio::test]
async fn an_event_that_is_no_message_ends_a_stream() {
    let batch = format!("[{}]", result("1", 1));
    let twice = r#"{"jsonrpc":"2.0","id":1,"id":1,"result":{}}"#.to_owned();
    for message in [batch, twice, "paid".to_owned()] {
        let lab = streaming(mcp(), Body::from([PROGRESS, &event(&message)].concat()));
        let text = lab.send(pay("1")).await.text().to_owned();
        assert!(!text.contains(&message), "{text}");
        assert_eq!((last(&text)["id"].as_u64(), last(&text)["error"]["code"].as_i64()), (Some(1), Some(-32060)));
        assert_error(&lab.send(pay("2")).await, "2", -32060, "outcome-unknown", "unknown;retry=?0");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_takes_too_long_is_passed_on_whole() {
    for (layer, seconds) in [(mcp(), 540), (mcp().max_run(HOUR).max_stream(SECOND * 3), 3)] {
        let (feed, body) = Feed::new();
        let (lab, began) = (streaming(layer, body), Instant::now());
        feed.say(PROGRESS);
        let mut client = Reader::open(&lab, pay("1")).await;
        assert_eq!(client.next().await.as_deref(), Some(PROGRESS));
        let part = &event(&result("1", 1))[..30];
        feed.say(part);
        settle().await;
        assert_error(&lab.send(pay("2")).await, "2", -32060, "in-flight", "pending;retry");
        // The part that was held back comes once the time is over.
        assert_eq!(client.late().await.as_deref(), Some(part));
        assert_eq!(began.elapsed().as_secs(), seconds);
        assert_not_replayable(&lab).await;
        advance(HOUR).await;
        feed.say(&event(&result("1", 1))[30..]);
        drop(feed);
        assert_eq!(client.rest().await, event(&result("1", 1))[30..]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_head_of_a_stream_comes_before_its_first_event() {
    let (feed, body) = Feed::new();
    let (lab, began) = (streaming(mcp(), body), Instant::now());
    let mut client = Reader::open(&lab, pay("1")).await;
    assert_eq!(began.elapsed().as_millis(), 500);
    assert_eq!(client.head.headers["content-type"], "text/event-stream");
    assert!(client.waits().await);
    feed.say(&event(&result("1", 1)));
    assert_eq!(client.rest().await, event(&result("1", 1)));
    assert!(lab.send(pay("2")).await.is_replay());
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_error_of_its_call() {
    let cuts =
        ["", PROGRESS, ": ping\n\n", "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"res", "data: {\"jsonrpc\":\"2.0\"}\n\n"];
    for cut in cuts {
        for ends in [false, true] {
            for (policy, retry) in [(OnInterrupted::Refuse, false), (OnInterrupted::Rerun, true)] {
                let (feed, body) = Feed::new();
                let lab = streaming(mcp().on_interrupted(policy), body);
                feed.say(cut);
                if ends {
                    drop(feed);
                } else {
                    feed.break_off();
                }
                let first = lab.send(pay("\"a\"")).await;
                assert_eq!((first.status.as_u16(), first.header("content-type")), (200, Some("text/event-stream")));
                let said = last(first.text());
                assert_eq!((&said["id"], &said["error"]["code"]), (&"a".into(), &(-32060).into()), "{cut:?}: {said}");
                let data = &said["error"]["data"];
                assert!(data["type"].as_str().unwrap().ends_with("#outcome-unknown"), "{said}");
                assert_eq!((&data["effect"], &data["retry_with_same_key"]), (&"unknown".into(), &retry.into()));
                assert!(!first.text().contains("\"res\n"), "what was cut is left out: {}", first.text());
                let again = lab.send(pay("2")).await;
                if retry {
                    assert_eq!((again.text(), lab.effects()), (&*result("1", 2), 2), "{cut:?}");
                } else {
                    let of_retry = assert_error(&again, "2", -32060, "outcome-unknown", "unknown;retry=?0");
                    assert!(data["record_id"].is_string() && data["record_id"] == of_retry["record_id"], "{said}");
                    assert_eq!(lab.effects(), 1);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_after_its_result_has_one() {
    let (feed, body) = Feed::new();
    let lab = streaming(mcp(), body);
    feed.say(&event(&result("1", 1)));
    feed.break_off();
    assert_eq!(lab.send(pay("1")).await.text(), event(&result("1", 1)));
    assert!(lab.send(pay("2")).await.is_replay());
}

#[tokio::test]
async fn a_stream_without_json_rpc_that_breaks_off_breaks_off_for_its_client_and_is_unknown() {
    let (feed, body) = Feed::new();
    let lab = streaming(layer().max_stream(HOUR), body);
    feed.say("data: a\n\ndata: b\n\ndata: c");
    feed.break_off();
    let mut client = Reader::open(&lab, testkit::lab::post("k", "a")).await;
    assert_eq!(client.next().await.as_deref(), Some("data: a\n\n"));
    assert_eq!(client.next().await.as_deref(), Some("data: b\n\ndata: c"));
    assert!(http_body_util::BodyExt::frame(&mut client.body).await.unwrap().is_err());
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_the_store_does_not_take_is_given_as_any_other_answer_is() {
    let (store, (feed, body)) = (TestStore::new(), Feed::new());
    let lab = streaming(mcp_over(store.clone()), body);
    (0..1_000).for_each(|_| store.fail_next(StoreCall::Complete));
    feed.say(PROGRESS);
    feed.say(&event(&result("1", 1)));
    assert_eq!(lab.send(pay("1")).await.text(), [PROGRESS, &event(&result("1", 1))].concat());
    // This process knows it.
    let again = lab.send(pay("2")).await;
    assert_eq!((again.text(), again.is_replay()), (&*event(&result("2", 1)), true));
}

#[tokio::test]
async fn a_process_that_dies_before_the_record_has_told_no_result() {
    let (store, (feed, body)) = (TestStore::new(), Feed::new());
    let lab = streaming(mcp_over(store.clone()), body);
    feed.say(PROGRESS);
    let mut client = Reader::open(&lab, pay("1")).await;
    assert_eq!(client.next().await.as_deref(), Some(PROGRESS));
    let held = store.stall(StoreCall::Complete);
    feed.say(&event(&result("1", 1)));
    assert!(client.waits().await);
    drop(client);
    let after = lab.behind(mcp_over(store.reopen()), |number| async move { json(result("1", number)) });
    let again = after.send(pay("2")).await;
    assert_error(&again, "2", -32060, "outcome-unknown", "unknown;retry=?0");
    assert_eq!(lab.effects(), 1);
    drop(held);
}
