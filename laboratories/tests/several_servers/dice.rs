//! Chance, and how large a run is.

use std::net::Ipv4Addr;
use std::time::Duration;

/// A number below `bound`.
pub(crate) fn below(bound: usize) -> usize {
    let bound = u64::try_from(bound).expect("it fits");
    usize::try_from(getrandom::u64().expect("random numbers") % bound).expect("it is below another one")
}

/// A time below `bound`.
pub(crate) fn time_below(bound: Duration) -> Duration {
    Duration::from_micros(u64::try_from(below(usize::try_from(bound.as_micros()).expect("it fits"))).expect("it fits"))
}

/// A number of the environment, by which a run has another size than in the short form.
pub(crate) fn size(variable: &str, short: usize) -> usize {
    std::env::var(variable).map_or(short, |number| number.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// An address of one's own: nobody else answers there when who listened is gone. Linux has millions of them.
pub(crate) fn loopback() -> Ipv4Addr {
    let [high, middle, low] = [64, 256, 254].map(|bound| u8::try_from(below(bound)).expect("it is small"));
    Ipv4Addr::new(127, 64 + high, middle, low + 1)
}
