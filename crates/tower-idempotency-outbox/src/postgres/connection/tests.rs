use super::*;

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
        assert_eq!(
            begin(began, Some(Duration::from_millis(200))),
            format!("{expected}; SET LOCAL lock_timeout = 200"),
            "{secs} s"
        );
    }
}
