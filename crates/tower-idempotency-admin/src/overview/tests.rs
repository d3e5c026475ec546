use super::*;

#[test]
fn the_oldest_is_the_first_of_those_whose_time_is_known() {
    let mut summary = Summary::default();
    for (since, oldest) in [(0, None), (7, Some(7)), (5, Some(5)), (9, Some(5)), (0, Some(5))] {
        summary.add(Timestamp::from_millis(since));
        assert_eq!(summary.oldest, oldest.map(Timestamp::from_millis), "{since}");
    }
    assert_eq!(summary.count, 5);
}
