//! Chance, and how large a run is.

use std::time::Duration;

pub(crate) use testkit::dice::below;

/// A time below `bound`.
pub(crate) fn time_below(bound: Duration) -> Duration {
    Duration::from_micros(u64::try_from(below(usize::try_from(bound.as_micros()).expect("it fits"))).expect("it fits"))
}

/// A number of the environment, by which a run has another size than in the short form.
pub(crate) fn size(variable: &str, short: usize) -> usize {
    std::env::var(variable).map_or(short, |number| number.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}
