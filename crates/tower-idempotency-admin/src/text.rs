//! Texts from outside, and times, in a form that can be shown.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use tower_idempotency::clock::Timestamp;

/// Returns whether a time is known: where it is not, it is 0.
pub(crate) fn is_known(time: Timestamp) -> bool {
    time.as_millis() > 0
}

/// Returns a text from outside without characters that are not seen, or that change the order of others: they are
/// written as their numbers. The template escapes what is markup.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    without(text, is_deceptive)
}

/// Returns the body of an answer likewise, with its lines and tabs.
pub(crate) fn shown_lines(text: &str) -> Cow<'_, str> {
    without(text, |char| is_deceptive(char) && !matches!(char, '\n' | '\r' | '\t'))
}

fn without(text: &str, is_hidden: fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if is_hidden(char) {
            // A string takes all that is written to it.
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(char));
        } else {
            shown.push(char);
        }
    }
    shown.into()
}

/// Returns whether a character is a control (C0, C1, and those of bidirectional text), or is not seen: those that
/// Unicode calls `Default_Ignorable_Code_Point` (UAX #44) and that a text may have, the separators of lines and
/// paragraphs, and the marks of annotations. The variation selectors (U+FE00 to U+FE0F) stay as they are: they
/// choose how the character before them looks, as in many emoji.
fn is_deceptive(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Returns a time in RFC 3339, in UTC, to the millisecond; `None` for what no calendar has.
pub(crate) fn rfc3339(time: Timestamp) -> Option<String> {
    // The calendar ends with the year 9999.
    const LAST: u64 = 253_402_300_799_999;
    let time = time.to_system_time().filter(|_| time.as_millis() <= LAST)?;
    Some(humantime::format_rfc3339_millis(time).to_string())
}

/// Returns a time for people: `2026-11-22 10:03:07 UTC`.
pub(crate) fn date(time: Timestamp) -> String {
    let whole = Timestamp::from_millis(time.as_millis() / 1_000 * 1_000);
    let text = rfc3339(whole).and_then(|text| Some(text.get(..19)?.replace('T', " ") + " UTC"));
    text.unwrap_or_else(|| format!("{} ms after 1970", time.as_millis()))
}

/// Returns the time since `then`, in one unit: `3 min`.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    span(Duration::from_millis(now.as_millis().saturating_sub(then.as_millis())))
}

/// Returns a duration of seconds or more in one unit, rounded down; of two of the next one, in that.
pub(crate) fn span(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Returns a short duration with two digits or more: `65 µs`, `1.5 ms`, `2.1 s`.
pub(crate) fn short_span(duration: Duration) -> String {
    match duration.as_micros() {
        micros @ 0..1_000 => format!("{micros} µs"),
        micros @ 1_000..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        micros @ 10_000..1_000_000 => format!("{} ms", micros / 1_000),
        micros => format!("{:.1} s", micros as f64 / 1e6),
    }
}

/// Returns the wall clock's time.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// Returns bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns why something is wrong as a sentence.
pub(crate) fn sentence(why: &str) -> String {
    let mut letters = why.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_deceives_the_eye_is_written_as_its_number() {
        assert_eq!(shown("order 17: café 東京 👩"), "order 17: café 東京 👩");
        let deceiving = "a\u{202e}b\u{200b}c\0\x1b[31m\u{85}\u{2066}\u{e0041}";
        assert_eq!(shown(deceiving), r"a\u{202e}b\u{200b}c\u{0}\u{1b}[31m\u{85}\u{2066}\u{e0041}");
        assert_eq!(shown_lines("a\r\nb\tc\u{202e}"), "a\r\nb\tc\\u{202e}");
    }

    #[test]
    fn a_time_that_no_calendar_has_is_shown_all_the_same() {
        assert_eq!(date(Timestamp::from_millis(1_795_341_787_999)), "2026-11-22 10:03:07 UTC");
        assert_eq!(date(Timestamp::from_millis(u64::MAX)), format!("{} ms after 1970", u64::MAX));
        assert_eq!(rfc3339(Timestamp::from_millis(1_500)).as_deref(), Some("1970-01-01T00:00:01.500Z"));
    }

    #[test]
    fn a_duration_is_shown_in_one_unit() {
        let seconds = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(seconds, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
        let micros = [3, 1_500, 12_000, 2_100_000].map(|micros| short_span(Duration::from_micros(micros)));
        assert_eq!(micros, ["3 µs", "1.5 ms", "12 ms", "2.1 s"]);
    }

    #[test]
    fn a_sentence_begins_with_a_capital_and_has_an_end() {
        let said = ["the body is not Base64", "`id` has 64 hex digits", ""].map(sentence);
        assert_eq!(said, ["The body is not Base64.", "`id` has 64 hex digits.", ""]);
        assert_eq!(hex(&[0x0a, 0xff]), "0aff");
    }
}
