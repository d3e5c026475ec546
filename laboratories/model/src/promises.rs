//! What must hold, whatever happens, and what must happen now and then, so that the model shows something.

use stateright::Property;
use tower_idempotency::internals::State;

use crate::database::Row;
use crate::process::Phase;
use crate::world::{Policy, Protocol, World};

/// By its name in DESIGN.md, section 1, or SHARED-STORES.md.
pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always("one effect per key", one_effect),
        Property::always("the same answer", |_, world: &World| !world.seen.contradiction),
        Property::always("nothing is said before it is stored", |_, world: &World| !world.seen.said_before_stored),
        Property::always("fences grow", |_, world: &World| !world.seen.fence_that_shrank),
        Property::always("a late outcome is never thrown away", |_, world: &World| !world.thrown_away),
        Property::always("no claim is without an owner", every_claim_has_its_run),
        Property::sometimes("an outcome is told", |_, world: &World| world.told.is_some()),
        Property::sometimes("a run that was thought dead completes", |_, world: &World| world.seen.late_outcome),
        Property::sometimes("a run that was taken over is refused", |protocol: &Protocol, world: &World| {
            world.disputes > 0 || protocol.policy == Policy::Refuse && protocol.budget.by_hand == 0
        }),
        Property::sometimes("the application is asked", |protocol: &Protocol, world: &World| {
            world.seen.verdict || protocol.policy != Policy::Ask
        }),
    ]
}

/// But for those that the policy or an operator warrants.
fn one_effect(_: &Protocol, world: &World) -> bool {
    world.effects.len() <= 1 + world.warranted
}

/// What is running of a process that is alive is what that process is about.
fn every_claim_has_its_run(_: &Protocol, world: &World) -> bool {
    let Some(Row { record: Some(record), owner: Some(owner), .. }) = &world.database.row else { return true };
    let is_running = matches!(record.state, State::Running { .. });
    let is_alive = world.processes.get(*owner).is_some_and(|phase| *phase != Phase::Dead) && !world.lapsed[*owner];
    let is_about_it = match &world.processes[*owner] {
        Phase::Running { fence, .. } => *fence == record.fence,
        Phase::Writing { .. } => true,
        Phase::Idle | Phase::Asking { .. } | Phase::Dead => false,
    };
    !is_running || !is_alive || is_about_it
}
