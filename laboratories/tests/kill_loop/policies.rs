//! The policies, and the arguments of the example server for them.

use testkit::history::Policy;

/// The server's treatment of an interrupted run, and the promise of that treatment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Treatment {
    pub(crate) name: &'static str,
    pub(crate) arguments: &'static str,
    pub(crate) policy: Policy,
    /// `true` if a key whose end is unknown may stay refused.
    pub(crate) refuses: bool,
    /// `true` if a 5xx frees the key.
    pub(crate) reruns: bool,
}

const fn treatment(name: &'static str, arguments: &'static str, policy: Policy) -> Treatment {
    Treatment { name, arguments, policy, refuses: false, reruns: false }
}

const ALL: [Treatment; 5] = [
    Treatment { refuses: true, ..treatment("refuse", "--on-interrupted refuse", Policy::Refuse) },
    Treatment { reruns: true, ..treatment("rerun", "--on-interrupted rerun", Policy::Rerun) },
    treatment("reconcile", "--on-interrupted reconcile", Policy::Reconcile),
    Treatment { reruns: true, ..treatment("atomic-rerun", "--atomic --on-interrupted rerun", Policy::Atomic) },
    Treatment { refuses: true, ..treatment("atomic-refuse", "--atomic --on-interrupted refuse", Policy::Atomic) },
];

/// Returns the policies that `KILL_LANES` names, or all of them.
pub(crate) fn taken() -> Vec<Treatment> {
    let names = std::env::var("KILL_LANES").ok();
    let is_taken =
        |treatment: &&Treatment| names.as_ref().is_none_or(|names| names.split(',').any(|name| name == treatment.name));
    let taken: Vec<_> = ALL.iter().filter(is_taken).copied().collect();
    assert!(!taken.is_empty(), "nothing to be killed: KILL_LANES is {names:?}");
    taken
}
