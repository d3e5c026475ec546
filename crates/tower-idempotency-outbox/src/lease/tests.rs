use super::*;

#[test]
fn a_reason_is_cut_at_its_bound_between_two_characters() {
    let reason = |length| Update::to(State::Waiting, "ä".repeat(length)).reason.chars().count();
    assert_eq!([MAX_REASON - 1, MAX_REASON, MAX_REASON + 1].map(reason), [MAX_REASON - 1, MAX_REASON, MAX_REASON]);
}

#[cfg(feature = "sled")]
#[test]
fn a_room_has_its_places_and_each_destination_its_own() {
    let mut room = Room { most: 4, of_each: 2, taken: HashMap::from([("b".to_owned(), 1)]) };
    // The last ones find all places taken, whose destination has a place or not.
    let found = ["a", "a", "a", "b", "b", "c", "c", "d"].map(|destination| room.take(destination));
    assert_eq!(found, [true, true, false, true, false, true, false, false]);
}
