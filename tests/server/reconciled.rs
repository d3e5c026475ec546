//! What the example's reconciler compares before it answers with a charge that it has found.

#[path = "../../examples/payment_server/evidence.rs"]
mod evidence;

use evidence::{Found, Moved, found};

const BEGAN: u64 = 1_790_000_000;
const DAY: u64 = 86_400;
const CHARGE: Moved<'_> = Moved { amount: 1_000, currency: "eur", created: BEGAN };

#[test]
fn a_charge_is_the_run_s_if_amount_currency_and_time_are() {
    let noted = Some((1_000, "eur"));
    assert_eq!(found(CHARGE, noted, BEGAN, DAY), Found::OfThisRun);
    assert_eq!(found(CHARGE, None, BEGAN, DAY), Found::OfThisRun);
    // The clocks differ by hours, or the run was claimed late; and it may have charged long after it began.
    for created in [BEGAN - DAY / 2, BEGAN + DAY] {
        assert_eq!(found(Moved { created, ..CHARGE }, noted, BEGAN, DAY), Found::OfThisRun);
    }
}

// The same key and the same request, after the retention.
#[test]
fn a_charge_from_before_the_operation_began_is_no_answer() {
    for created in [0, BEGAN - DAY, BEGAN - DAY / 2 - 1] {
        assert_eq!(found(Moved { created, ..CHARGE }, Some((1_000, "eur")), BEGAN, DAY), Found::OfAnEarlierOperation);
    }
}

#[test]
fn a_charge_of_another_sum_is_no_answer() {
    for noted in [(999, "eur"), (1_000, "usd")] {
        assert_eq!(found(CHARGE, Some(noted), BEGAN, DAY), Found::AnotherSum);
    }
}
