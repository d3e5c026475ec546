//! Faults at random, by a seed.

use std::time::Duration;

use super::call::Fault;

/// The frequency of each fault, in a thousand calls; together at most a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultRates {
    /// [`Fault::Refuse`].
    pub refuse: u32,
    /// [`Fault::LoseCall`].
    pub lose_call: u32,
    /// [`Fault::LoseAnswer`].
    pub lose_answer: u32,
    /// [`Fault::Late`].
    pub late: u32,
    /// [`Fault::Double`].
    pub double: u32,
    /// Of a thousand calls, before how many one of those that are late arrives.
    pub deliver: u32,
    /// The longest that a call, and its answer, are under way. Anything up to that is equally likely.
    pub delay: Duration,
}

/// Each fault of fifty calls in a thousand; one that is late arrives before every fifth; no delay.
impl Default for FaultRates {
    fn default() -> Self {
        Self { refuse: 50, lose_call: 50, lose_answer: 50, late: 50, double: 50, deliver: 200, delay: Duration::ZERO }
    }
}

/// The generator called `SplitMix64`.
// `testkit::Dice` is the same generator. This crate is published and testkit is not, so it can't depend on testkit.
#[derive(Debug)]
pub(super) struct Random {
    state: u64,
    rates: FaultRates,
}

/// The faults and delays of one call.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    pub(super) fault: Option<Fault>,
    /// A number by which one of the late calls is chosen, if one arrives before this.
    pub(super) deliver: Option<usize>,
    pub(super) there: Duration,
    pub(super) back: Duration,
}

impl Random {
    pub(super) fn new(seed: u64, rates: FaultRates) -> Self {
        Self { state: seed, rates }
    }

    pub(super) fn draw(&mut self) -> Drawn {
        let FaultRates { refuse, lose_call, lose_answer, late, double, deliver, delay } = self.rates;
        let faults = [
            (refuse, Fault::Refuse),
            (lose_call, Fault::LoseCall),
            (lose_answer, Fault::LoseAnswer),
            (late, Fault::Late),
            (double, Fault::Double),
        ];
        // The same number of draws for each call, so that a seed means the same whatever happens.
        let mut place = self.below(1_000);
        let fault = faults.into_iter().find_map(|(rate, fault)| {
            let is_it = place < u64::from(rate);
            place = place.saturating_sub(u64::from(rate));
            is_it.then_some(fault)
        });
        let is_delivered = self.below(1_000) < u64::from(deliver);
        let which = usize::try_from(self.below(1 << 16)).unwrap_or(0);
        let (there, back) = (self.up_to(delay), self.up_to(delay));
        Drawn { fault, deliver: is_delivered.then_some(which), there, back }
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        let milliseconds = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX - 1);
        Duration::from_millis(self.below(milliseconds + 1))
    }

    /// A number from 0 to one less than `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
