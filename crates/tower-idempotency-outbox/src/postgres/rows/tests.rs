use super::*;

#[test]
fn how_long_ago_the_first_try_was_is_known_by_three_clocks_and_lies_between_two() {
    for (database, wall, seen, own, at_least, at_most) in [
        (9.0, 9.0, 9.0, None, 9, 9),
        // It is not known which of two is right.
        (9.0, 1.0, 5.0, None, 1, 9),
        (1.0, 9.0, 5.0, None, 1, 9),
        (-9.0, 9.0, 5.0, None, 0, 9),
        (9.0, 9.0, 0.0, None, 0, 9),
        // Of three it is.
        (90.0, 9.0, 9.0, Some(9.0), 9, 9),
        (9.0, 90.0, 9.0, Some(8.0), 8, 9),
        (-90.0, 9.0, 9.0, Some(8.0), 0, 8),
        // The machine has slept.
        (90.0, 90.0, 9.0, Some(9.0), 9, 90),
    ] {
        let Age { at_least: least, at_most: most } = tried_for(database, wall, seen, own);
        assert_eq!((least.as_secs(), most.as_secs()), (at_least, at_most), "{database} {wall} {seen} {own:?}");
    }
}
