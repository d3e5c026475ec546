//! Another request of the same kind: a body in which one number is another one.

/// Returns the body with its first number raised by one, if it has one. JSON stays JSON, and a form a form.
pub(crate) fn other(body: &str) -> Option<String> {
    let mut digits = body.match_indices(|character: char| character.is_ascii_digit());
    let (before, from) = body.split_at(digits.find(|(at, _)| is_value(&body[..*at]))?.0);
    let after = from.trim_start_matches(|character: char| character.is_ascii_digit());
    // A longer one is no amount.
    let number = from[..from.len() - after.len()].parse::<u64>().ok()?.checked_add(1)?;
    Some(format!("{before}{number}{after}"))
}

/// Whether a value may begin after this text, as in `{"amount":` and `amount=`.
fn is_value(before: &str) -> bool {
    before.is_empty() || before.trim_end().ends_with([':', '=', '[', ','])
}

#[cfg(test)]
mod tests {
    use super::other;

    #[test]
    fn one_number_is_another_one() {
        for (body, expected) in [
            ("amount=5&currency=usd", Some("amount=6&currency=usd")),
            (r#"{"id":"a1","amount": 99}"#, Some(r#"{"id":"a1","amount": 100}"#)),
            ("7", Some("8")),
            ("name=alice", None),
            ("18446744073709551615", None),
            ("", None),
        ] {
            assert_eq!(other(body).as_deref(), expected, "{body}");
        }
    }
}
