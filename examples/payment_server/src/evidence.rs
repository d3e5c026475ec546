//! The decision whether a charge or refund under the key of an interrupted run was made by that run.
//!
//! A client may send the same key and request again after the retention. That is another operation with the same
//! derived key, and its run must not be answered with the charge of the first one. That charge is older than the run by
//! at least the retention. A charge that is older by less than half of it is the run's own: the clocks of the ledger
//! and of the records may differ, and a run that `fail_open` let go ahead may be claimed only later.

/// A charge or refund: the sum, and the time in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved<'a> {
    pub(crate) amount: u64,
    pub(crate) currency: &'a str,
    pub(crate) created: u64,
}

/// The evidence under the key of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The run has made this charge or refund.
    OfThisRun,
    /// It was made before the operation began.
    OfAnEarlierOperation,
    /// Its sum is not the one that was noted when the key was derived.
    AnotherSum,
}

/// Compares the amount and currency with the sum that was noted under the key, and the time with that at which the
/// operation began. The retention is in seconds.
pub(crate) fn found(moved: Moved<'_>, noted: Option<(u64, &str)>, began: u64, retention: u64) -> Found {
    if moved.created.saturating_add(retention / 2) < began {
        return Found::OfAnEarlierOperation;
    }
    match noted {
        Some(noted) if noted != (moved.amount, moved.currency) => Found::AnotherSum,
        _ => Found::OfThisRun,
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, Moved, found};

    const BEGAN: u64 = 1_790_000_000;
    const DAY: u64 = 86_400;
    const CHARGE: Moved<'_> = Moved { amount: 1_000, currency: "eur", created: BEGAN };

    #[test]
    fn a_charge_is_the_run_s_if_amount_currency_and_time_are() {
        let noted = Some((1_000, "eur"));
        assert_eq!(found(CHARGE, noted, BEGAN, DAY), Found::OfThisRun);
        assert_eq!(found(CHARGE, None, BEGAN, DAY), Found::OfThisRun);
        // The clocks may differ by hours, the run may have been claimed late, and it may have charged long after it
        // began.
        for created in [BEGAN - DAY / 2, BEGAN + DAY] {
            assert_eq!(found(Moved { created, ..CHARGE }, noted, BEGAN, DAY), Found::OfThisRun);
        }
    }

    // The client sent the same key and request again, after the retention.
    #[test]
    fn a_charge_from_before_the_operation_began_is_no_answer() {
        for created in [0, BEGAN - DAY, BEGAN - DAY / 2 - 1] {
            assert_eq!(
                found(Moved { created, ..CHARGE }, Some((1_000, "eur")), BEGAN, DAY),
                Found::OfAnEarlierOperation
            );
        }
    }

    #[test]
    fn a_charge_of_another_sum_is_no_answer() {
        for noted in [(999, "eur"), (1_000, "usd")] {
            assert_eq!(found(CHARGE, Some(noted), BEGAN, DAY), Found::AnotherSum);
        }
    }
}
