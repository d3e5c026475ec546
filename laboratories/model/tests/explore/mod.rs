//! The functions that the tests of both models share: they explore all states, print how many there are, and compare
//! the sights with the expected ones.

use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Fails if a promise is broken in any state, or if something is never seen that has to be seen now and then.
pub fn keeps_its_promises<M>(name: &str, model: M, goals: &[&[&str]])
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let properties = model.properties();
    let checker = model.checker().threads(1).spawn_bfs().join();
    let (states, unique, depth) = (checker.state_count(), checker.unique_state_count(), checker.max_depth());
    let mut found = checker.discoveries();
    let mut report = format!("{name}: {states} states, {unique} of them unique, depth {depth}\n");
    let mut broken = Vec::new();
    for property in properties {
        let seen = found.remove(property.name);
        match (property.expectation, seen) {
            (Expectation::Sometimes, Some(path)) => {
                report += &format!("    sometimes {} (after {} events)\n", property.name, path.into_actions().len());
            }
            (Expectation::Sometimes, None) if goals.iter().any(|goals| goals.contains(&property.name)) => {
                broken.push(format!("{name}: it is never seen that {}", property.name));
            }
            (Expectation::Always, Some(path)) => {
                broken.push(format!("{name}: not always {}: {:#?}", property.name, path.into_actions()));
            }
            _ => {}
        }
    }
    print!("{report}");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Fails if this model, in which something is broken, keeps this promise in every state.
pub fn is_seen_to_break<M>(name: &str, model: M, promise: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let until = HasDiscoveries::AllOf([promise].into());
    let checker = model.checker().threads(1).finish_when(until).spawn_bfs().join();
    let path = checker.discovery(promise).unwrap_or_else(|| panic!("{name} does not break {promise:?}"));
    println!("{name} breaks {promise:?}: {:?}", path.into_actions());
}
