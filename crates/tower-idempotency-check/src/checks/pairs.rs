//! Pairs of keys that are nearly equal, and are two keys.

use std::collections::VecDeque;

use crate::dialect::{Dialect, Rule};
use crate::finding::Severity;
use crate::probe::{Probe, Stop};

/// Lengths after which keys are cut: by columns of databases, by forms of ids, and by limits of APIs.
const CUTS: [usize; 10] = [32, 36, 40, 50, 64, 100, 128, 191, 254, 255];

/// The longest key.
const LONGEST: usize = 255;

/// Characters at which keys are cut, because they are put together of parts, or are a part of something. The last one
/// is for keys in quotes.
const SEPARATORS: &str = ",;:./-_|#&=+@~%*!?$ ";

/// Two keys in which `K` is the same, and in what they differ. All but the first are for keys in quotes.
const FORMS: [(&str, [&str; 2]); 5] = [
    ("in `%41` for `A`", ["K%41", "KA"]),
    ("in a blank at the end", ["K", "K "]),
    ("in a blank at the beginning", ["K", " K"]),
    ("in a second blank", ["K a", "K  a"]),
    ("in `+` for a blank", ["K+a", "K a"]),
];

/// Two keys, and in what they differ.
struct Pair {
    differ: String,
    keys: [String; 2],
    /// Pairs that say more of it, if a server refuses these keys or takes them for one.
    parts: Vec<Pair>,
}

/// Two keys that differ before these separators, or after them.
fn separated(dialect: &Dialect, separators: &str, is_after: bool) -> Pair {
    let (key, place) = (dialect.new_key(), if is_after { "after" } else { "before" });
    let keys = ['a', 'b']
        .map(|end| if is_after { format!("{key}{separators}{end}") } else { format!("{end}{separators}{key}") });
    let parts = separators.split("").filter(|one| !one.is_empty() && *one != separators);
    let parts = parts.map(|separator| separated(dialect, separator, is_after)).collect();
    Pair { differ: format!("{place} `{separators}`"), keys, parts }
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
        pairs.push((differ, [one, other].map(|end| format!("{end}{first}"))));
        let differ = format!("in their last character ({class})");
        pairs.push((differ, [one, other].map(|end| format!("{last}{end}"))));
    }
    // A digest of the end alone.
    let tail = "k".repeat(LONGEST - 3 - new_key().len());
    let key = new_key();
    let keys = ['a', 'b'].map(|begin| format!("{begin}{key}{tail}"));
    pairs.push(("in their first character, and are long".to_owned(), keys));
    for (differ, forms) in &FORMS[..if is_quoted { FORMS.len() } else { 1 }] {
        let key = new_key();
        pairs.push(((*differ).to_owned(), forms.map(|form| form.replace('K', &key))));
    }
    for cut in CUTS {
        let key = format!("{}{}", new_key(), "k".repeat(LONGEST));
        let keys = [key[..cut].to_owned(), format!("{}x", &key[..cut])];
        pairs.push((format!("after {cut} characters"), keys));
    }
    let separators = if is_quoted { SEPARATORS } else { SEPARATORS.trim_end() };
    let pairs = pairs.into_iter().map(|(differ, keys)| Pair { differ, keys, parts: Vec::new() });
    pairs.chain([false, true].map(|is_after| separated(dialect, separators, is_after))).collect()
}

pub(super) async fn pairs_of_keys(probe: &Probe<'_>) -> Result<(), Stop> {
    let (mut are_one, mut failed, mut did_run) = (Vec::new(), None, false);
    let mut pairs = VecDeque::from(pairs(probe.dialect(), probe.is_quoted()));
    while let Some(Pair { differ, keys: [one, other], parts }) = pairs.pop_front() {
        let first = probe.send(&format!("one of two keys that differ {differ}"), &probe.keyed(&one)).await?;
        let mut answers = vec![first.clone()];
        if first.is_success() {
            did_run = true;
            // Only a count tells answers apart that are alike.
            let before = if probe.are_alike() { probe.ledger().await? } else { None };
            let second = probe.settled("the other key", &probe.keyed(&other)).await?;
            if probe.is_first(&first, &second, &before).await? {
                are_one.push(differ);
                pairs.extend(parts);
            }
            answers.push(second);
        } else {
            pairs.extend(parts);
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
            let mut pairs = pairs(dialect, is_quoted);
            assert_eq!(pairs.len(), 8 + 1 + if is_quoted { FORMS.len() } else { 1 } + CUTS.len() + 2);
            let parts: Vec<_> = pairs.iter_mut().flat_map(|pair| std::mem::take(&mut pair.parts)).collect();
            assert_eq!(parts.len(), 2 * (SEPARATORS.len() - usize::from(!is_quoted)));
            for Pair { differ, keys: [one, other], parts } in pairs.into_iter().chain(parts) {
                let characters = one.chars().zip(other.chars()).filter(|(one, other)| one != other).count();
                let is_form = FORMS.iter().any(|(form, _)| *form == differ);
                assert!(
                    is_form && one != other || characters + other.len() - one.len() == 1,
                    "{differ}: {one} {other}"
                );
                assert!(other.len() <= LONGEST + 1 && parts.is_empty(), "{differ}: {}", other.len());
                assert!(is_quoted || !one.contains(' ') && !other.contains(' '), "{differ}: {one}");
            }
        }
    }
}
