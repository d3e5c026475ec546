use std::time::Duration;

use super::*;

#[test]
fn each_health_is_said_in_words_and_only_the_good_one_is_good() {
    let since = Duration::from_secs(90);
    let reason = || "no\u{202e}route".to_owned();
    for (of, is_good, words) in [
        (Health::Good, true, "works"),
        (Health::Slow { since }, false, "is slow: a write has been under way for 90 s"),
        (Health::Full { limit: "max_records" }, false, "is full and takes no new keys: max_records is reached"),
        (Health::Away { since, reason: reason() }, false, r"can't be reached since 90 s: no\u{202e}route"),
        (Health::Poisoned { reason: reason() }, false, r"is poisoned, restart the process: no\u{202e}route"),
        (Health::Closed, false, "is closed"),
    ] {
        assert_eq!(health(&of), (is_good, words.to_owned()), "{of:?}");
    }
}
