//! What the example's reconciler compares before it answers with a charge that it has found.

#[path = "../../examples/payment_server/evidence.rs"]
mod evidence;

use evidence::{Found, Moved, found};

const BEGAN: u64 = 1_790_000_000;
const CHARGE: Moved<'_> = Moved { amount: 1_000, currency: "eur", created: BEGAN };

#[test]
fn a_charge_is_the_run_s_if_amount_currency_and_time_are() {
    let noted = Some((1_000, "eur"));
    assert_eq!(found(CHARGE, noted, BEGAN), Found::OfThisRun);
    assert_eq!(found(CHARGE, None, BEGAN), Found::OfThisRun);
    // The clocks differ by less than a minute, and the run may have charged long after it began.
    for created in [BEGAN - 60, BEGAN + 86_400] {
        assert_eq!(found(Moved { created, ..CHARGE }, noted, BEGAN), Found::OfThisRun);
    }
}

// The same key and the same request, after the retention.
#[test]
fn a_charge_from_before_the_operation_began_is_no_answer() {
    for created in [0, BEGAN - 86_400, BEGAN - 61] {
        assert_eq!(found(Moved { created, ..CHARGE }, Some((1_000, "eur")), BEGAN), Found::OfAnEarlierOperation);
    }
}

#[test]
fn a_charge_of_another_sum_is_no_answer() {
    for noted in [(999, "eur"), (1_000, "usd")] {
        assert_eq!(found(CHARGE, Some(noted), BEGAN), Found::AnotherSum);
    }
}
