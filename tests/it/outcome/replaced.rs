//! What `on_replay` gives in place of a replay has to be an answer that a server can send.

use bytes::Bytes;
use http::{Response, StatusCode};
use testkit::lab::{Lab, layer};
use tower_idempotency::server::Replay;

/// An answer in place of a replay, with this `Content-Length`.
fn replaced(status: u16, length: Option<&'static str>, body: &'static str) -> Replay {
    let answer = Response::builder().status(StatusCode::from_u16(status).unwrap());
    let answer = length.into_iter().fold(answer, |answer, length| answer.header("content-length", length));
    Replay::Replace(answer.body(Bytes::from_static(body.as_bytes())).unwrap())
}

// Seeded faults, one for each part of the rule: an interim answer is given; a length that is not the body's; one that
// can't be read; the second of two lengths.
#[tokio::test]
async fn an_interim_answer_or_another_length_in_place_of_a_replay_is_refused() {
    for (status, length, body, given) in [
        (200, None, "fresh", true),
        (200, Some("5"), "fresh", true),
        (410, Some("5"), "fresh", true),
        (204, None, "", true),
        (304, Some("5"), "", true),
        (100, None, "", false),
        (101, None, "", false),
        (103, None, "", false),
        (199, Some("0"), "", false),
        (200, Some("4"), "fresh", false),
        (200, Some("6"), "fresh", false),
        (200, Some("+5"), "fresh", false),
        (200, Some(""), "fresh", false),
        (200, Some("5, 5"), "fresh", false),
        (204, Some("4"), "fresh", false),
    ] {
        let row = format!("{status} {length:?} {body}");
        let layer = layer().on_replay(move |_, _| async move { replaced(status, length, body) });
        let lab = Lab::counting(layer);
        assert_eq!(lab.post("k", "a").await.text(), "effect 1", "{row}");
        let retry = lab.post("k", "a").await;
        match given {
            true => assert_eq!((retry.status.as_u16(), retry.is_replay()), (status, true), "{row}"),
            false => {
                assert_eq!((retry.status.as_u16(), retry.header("retry-after")), (503, Some("1")), "{row}");
                assert_eq!(retry.header("idempotency-effect"), Some("unknown;retry"), "{row}");
            }
        }
        assert_eq!(lab.effects(), 1, "{row}");
    }
}
