//! The page of meanings says what becomes of a call after each answer.

use testkit::meanings::{rejections, statuses};
use tower_idempotency_outbox::{Outbox as _, State};

use crate::ends::after;
use crate::home::{Home, over_both};
use crate::server::answer;

over_both!(each_status_and_each_refusal_leads_where_the_page_says);

async fn each_status_and_each_refusal_leads_where_the_page_says(home: impl Home) {
    let mut number = 0;
    let mut found = async |status, lines: Vec<(&'static str, &'static str)>| {
        number += 1;
        after(&home, number, move || answer(status, &lines, "")).await
    };
    for (status, row) in statuses() {
        // A call whose time is over is given up in place of another try.
        let state = match row.get("outbox") {
            "delivered" => State::Delivered,
            "refused" => State::Refused,
            "given up" | "another try" => State::GivenUp,
            other => panic!("{other}"),
        };
        let may_have_taken_place = row.get("a client knows") != "refused";
        assert_eq!(found(status, vec![]).await, (state, may_have_taken_place), "{status}");
        assert_eq!(row.get("outbox") == "given up", (300..=305).contains(&status), "{status}");
    }
    for row in rejections() {
        let (status, says) = (row.statuses()[0], row.get("says"));
        let state = match says {
            "none;retry=?0" => State::Refused,
            "done;status=200;retry=?0" => State::Delivered,
            _ => State::GivenUp,
        };
        let ended = found(status, vec![("idempotency-effect", says)]).await;
        assert_eq!(ended, (state, !says.starts_with("none")), "{row:?}");
    }
    assert!(home.outbox().list(State::Waiting, None, 9).await.unwrap().is_empty());
}
