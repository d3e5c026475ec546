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

#[tokio::test(start_paused = true)]
async fn the_server_ends_a_transaction_in_three_quarters_of_the_time_that_is_left() {
    let began = Instant::now();
    let mut passed = 0;
    for (secs, within) in [(0, 15_000), (4, 12_000), (19, 750), (20, 1), (25, 1)] {
        tokio::time::advance(Duration::from_secs(secs - passed)).await;
        passed = secs;
        let expected = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {within}; \
            SET LOCAL idle_in_transaction_session_timeout = {within}; SET LOCAL search_path = pg_catalog, pg_temp"
        );
        assert_eq!(begin(began, None), expected, "{secs} s");
        assert_eq!(begin(began, Some(LOCK_TIMEOUT)), format!("{expected}; SET LOCAL lock_timeout = 200"), "{secs} s");
    }
}
