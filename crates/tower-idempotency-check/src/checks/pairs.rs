//! Pairs of keys that are nearly equal, and are two keys.

use crate::dialect::{Dialect, Rule};
use crate::finding::Severity;
use crate::probe::{Probe, Stop};

/// Lengths after which keys are cut: by columns of databases, by forms of ids, and by limits of APIs.
const CUTS: [usize; 10] = [32, 36, 40, 50, 64, 100, 128, 191, 254, 255];

/// The longest key.
const LONGEST: usize = 255;

/// Two keys, and in what they differ.
struct Pair {
    differ: String,
    keys: [String; 2],
}

/// The pairs. The characters of the first ones are such that the keys have the form of a UUID, where that can be.
fn pairs(dialect: &Dialect, is_quoted: bool) -> Vec<Pair> {
    let (mut pairs, new_key) = (Vec::new(), || dialect.new_key());
    for (class, one, other) in
        [("lower", 'a', 'b'), ("upper", 'A', 'B'), ("digit", '1', '2'), ("punctuation", '-', '_')]
    {
        let key = if class == "upper" { new_key().to_uppercase() } else { new_key() };
        let (first, last) = match class {
            "punctuation" => (key.as_str(), key.as_str()),
            _ => (&key[1..], &key[..key.len() - 1]),
        };
        let differ = format!("in their first character ({class})");
        pairs.push(Pair { differ, keys: [one, other].map(|end| format!("{end}{first}")) });
        let differ = format!("in their last character ({class})");
        pairs.push(Pair { differ, keys: [one, other].map(|end| format!("{last}{end}")) });
    }
    // A digest of the end alone.
    let tail = "k".repeat(LONGEST - 3 - new_key().len());
    let key = new_key();
    let keys = ['a', 'b'].map(|begin| format!("{begin}{key}{tail}"));
    pairs.push(Pair { differ: "in their first character, and are long".to_owned(), keys });
    if is_quoted {
        let key = new_key();
        pairs.push(Pair { differ: "in a blank at the end".to_owned(), keys: [key.clone(), format!("{key} ")] });
    }
    for cut in CUTS {
        let key = format!("{}{}", new_key(), "k".repeat(LONGEST));
        let keys = [key[..cut].to_owned(), format!("{}x", &key[..cut])];
        pairs.push(Pair { differ: format!("after {cut} characters"), keys });
    }
    pairs
}

pub(super) async fn pairs_of_keys(probe: &Probe<'_>) -> Result<(), Stop> {
    let (mut are_one, mut failed, mut did_run) = (Vec::new(), None, false);
    for Pair { differ, keys: [one, other] } in pairs(probe.dialect(), probe.is_quoted()) {
        let first = probe.send(&format!("one of two keys that differ {differ}"), &probe.keyed(&one)).await?;
        let mut answers = vec![first.clone()];
        if first.status.is_success() {
            did_run = true;
            let before = probe.before_alike().await?;
            let second = probe.settled("the other key", &probe.keyed(&other)).await?;
            if probe.is_first(&first, &second, &before).await? {
                are_one.push(differ);
            }
            answers.push(second);
        }
        // A server may refuse a key, and not break at it.
        let longest = other.len();
        let is_failure = |answer: &&crate::http::message::Answer| answer.status.as_u16() == 500;
        if let Some(answer) = answers.iter().find(is_failure) {
            failed.get_or_insert(format!("a key of {longest} characters gets {}", answer.summary()));
        }
    }
    if !are_one.is_empty() {
        let what = format!(
            "two keys are one, and the operation of the second is taken for done, if they differ {}",
            are_one.join("; ")
        );
        probe.found(Severity::Dangerous, Rule::Syntax, what);
    }
    if let Some(what) = failed {
        probe.found(Severity::Wrong, Rule::Syntax, what);
    }
    if !did_run {
        return Err(Stop::Skip("the server refuses keys of these forms"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_of_a_pair_differ_in_one_character_or_in_length() {
        for (dialect, is_quoted) in Dialect::ALL.iter().flat_map(|dialect| [(dialect, false), (dialect, true)]) {
            let pairs = pairs(dialect, is_quoted);
            assert_eq!(pairs.len(), 8 + 1 + usize::from(is_quoted) + CUTS.len());
            for Pair { differ, keys: [one, other] } in pairs {
                let characters = one.chars().zip(other.chars()).filter(|(one, other)| one != other).count();
                assert_eq!(characters + other.len() - one.len(), 1, "{differ}: {one} {other}");
                assert!(other.len() <= LONGEST + 1, "{differ}: {}", other.len());
            }
        }
    }
}
