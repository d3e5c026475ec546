//! The keys that the scenario asks for.

use laboratories::work::key;
use laboratories::work::key::Kind;
use testkit::history::Policy;

/// The next key. [`of_each_sort`](Self::of_each_sort) takes some keys of each sort; earlier processes have used the
/// first ones.
pub(crate) struct Cast(pub(crate) u64);

impl Cast {
    /// Returns the next key of this policy and kind whose outcome has at least `least` bytes.
    pub(crate) fn next(&mut self, policy: Policy, kind: Kind, least: usize) -> u64 {
        let fits = |key: u64| {
            let length = || key::outcome(key, 1).len();
            key::policy(key) == policy
                && key::kind(key) == kind
                && length() >= least
                && length() < 50_000.max(3 * least)
        };
        let key = (self.0..).find(|key| fits(*key)).expect("there are as many as one likes");
        self.0 = key + 1;
        key
    }

    pub(crate) fn of_each_sort(&mut self) -> Vec<u64> {
        use Kind::{Consumed, Cut, Done, Forgotten, Ledger, Released};
        use Policy::{Atomic, Reconcile, Refuse, Rerun};
        let small = [
            (Refuse, Done),
            (Refuse, Ledger),
            (Rerun, Done),
            (Atomic, Done),
            (Refuse, Cut),
            (Refuse, Released),
            (Rerun, Cut),
            (Refuse, Forgotten),
            (Atomic, Released),
            (Refuse, Consumed),
            (Reconcile, Cut),
        ];
        let long = [(Refuse, 60_000), (Atomic, 10_000), (Rerun, 20_000)];
        let small: Vec<_> = small.iter().map(|(policy, kind)| self.next(*policy, *kind, 0)).collect();
        small.into_iter().chain(long.iter().map(|(policy, least)| self.next(*policy, Done, *least))).collect()
    }
}
