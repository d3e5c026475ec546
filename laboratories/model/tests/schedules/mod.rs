//! Schedules: events in one order, and the promises that they break.

use model::{Ending, Event, Protocol};
use stateright::{Expectation, Model};

/// The first process has its effect, and its outcome is not durable yet when the second one gets a request. The standby
/// takes over, and the first process dies. The third one runs the operation again. This can't happen unless a call
/// showed the second process the outcome: it would send its claim again.
pub(crate) const REPLAYED_AND_LOST: &[Event] = &[
    Event::Request(0, 0),
    arrives(0, 1),
    Event::Replicate,
    Event::Act { process: 0, key: 0, slow: false },
    Event::Finish(0, 0, Ending::Outcome),
    arrives(0, 2),
    Event::Request(1, 0),
    arrives(1, 1),
    Event::FailOver,
    Event::Crash(0),
    Event::Request(2, 0),
    arrives(2, 1),
    arrives(2, 2),
    Event::Act { process: 2, key: 0, slow: false },
    Event::Finish(2, 0, Ending::Outcome),
    arrives(2, 3),
];

/// The same until the first process dies. The second one has no answer, sends its claim again, and runs the operation
/// again: no client has an answer of the first run.
pub(crate) const ANSWERED_ANEW: &[Event] = &[
    Event::Request(0, 0),
    arrives(0, 1),
    Event::Replicate,
    Event::Act { process: 0, key: 0, slow: false },
    Event::Finish(0, 0, Ending::Outcome),
    arrives(0, 2),
    Event::Request(1, 0),
    arrives(1, 1),
    Event::FailOver,
    Event::Crash(0),
    Event::Resend { by: 1, number: 1 },
    arrives(1, 1),
    arrives(1, 2),
    Event::Act { process: 1, key: 0, slow: false },
    Event::Finish(1, 0, Ending::Outcome),
    arrives(1, 3),
];

/// A write arrives once, and its answer is not lost.
const fn arrives(by: u8, number: u8) -> Event {
    Event::Arrive { by, number, again: false, lost: false }
}

/// Returns the promises that these events break, in the order in which they do. Fails if one of the events can't happen
/// after those before it.
pub(crate) fn broken_by(protocol: Protocol, events: &[Event]) -> Vec<&'static str> {
    let mut promises = protocol.properties();
    promises.retain(|property| property.expectation == Expectation::Always);
    let mut world = protocol.init_states().remove(0);
    let mut broken = Vec::new();
    for event in events {
        let mut possible = Vec::new();
        protocol.actions(&world, &mut possible);
        assert!(possible.contains(event), "{event:?} can't happen, only {possible:?}");
        world = protocol.next_state(&world, *event).unwrap();
        let new = promises.extract_if(.., |promise| !(promise.condition)(&protocol, &world));
        broken.extend(new.map(|promise| promise.name));
    }
    broken
}
