//! The policies, and the arguments of the example server for them.

use testkit::history::Policy;
use testkit::payment_server;

/// How the server treats what was interrupted, and what that promises.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Treatment {
    pub(crate) name: &'static str,
    pub(crate) arguments: &'static str,
    pub(crate) policy: Policy,
    /// What is not known may stay refused.
    pub(crate) refuses: bool,
    /// Whether a 5xx frees the key.
    pub(crate) reruns: bool,
    /// Whether records can be made to expire soon, to be swept.
    pub(crate) sweeps: bool,
}

const fn treatment(name: &'static str, arguments: &'static str, policy: Policy) -> Treatment {
    Treatment { name, arguments, policy, refuses: false, reruns: false, sweeps: false }
}

const ALL: [Treatment; 5] = [
    Treatment { refuses: true, ..treatment("refuse", "--on-interrupted refuse", Policy::Refuse) },
    Treatment { reruns: true, ..treatment("rerun", "--on-interrupted rerun", Policy::Rerun) },
    treatment("reconcile", "--on-interrupted reconcile", Policy::Reconcile),
    Treatment { reruns: true, ..treatment("atomic-rerun", "--atomic --on-interrupted rerun", Policy::Atomic) },
    Treatment { refuses: true, ..treatment("atomic-refuse", "--atomic --on-interrupted refuse", Policy::Atomic) },
];

/// What this build of the server offers, and `KILL_LANES` takes.
pub(crate) fn offered() -> Vec<Treatment> {
    let help = payment_server::help();
    let taken = std::env::var("KILL_LANES").ok();
    let is_taken =
        |treatment: &Treatment| taken.as_ref().is_none_or(|taken| taken.split(',').any(|name| name == treatment.name));
    let is_offered = |treatment: &Treatment| treatment.arguments.split(' ').all(|word| help.contains(word));
    let offered = ALL.iter().filter(|treatment| is_taken(treatment) && is_offered(treatment));
    let offered: Vec<_> = offered.map(|&all| Treatment { sweeps: help.contains("--retention"), ..all }).collect();
    assert!(!offered.is_empty(), "nothing to be killed: KILL_LANES is {taken:?}");
    offered
}
