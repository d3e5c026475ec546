//! What is wrong with a server.

use axum::http::HeaderMap;
use serde_json::{Map, Value};

use super::twist::Twist;

/// What is wrong with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// None either: a bare key is no String of structured fields, and is ignored.
    OnlyQuoted,
    /// None either: a key in quotes is ignored.
    OnlyBare,
    /// It is said to answer probes, and does not know them.
    RunsProbes,
    /// Keys are not looked at.
    NoKeys,
    /// The key is recorded after the effect.
    RecordsLate,
    /// Two of many copies run.
    SecondCopyRuns,
    /// Copies of a request in flight get a 500.
    CopiesFail,
    /// They get a 200 that says nothing.
    CopiesDiffer,
    /// Copies of a request in flight may come back "soon".
    SaysSoon,
    /// Another account's answer is given.
    IgnoresAccount,
    /// All accounts get one session.
    SharesCookies,
    /// Another request gets the answer of the first.
    IgnoresBody,
    IgnoresQuery,
    IgnoresMethod,
    IgnoresPath,
    /// A key that can't be read is taken for none.
    MalformedIsNone,
    /// An answer is recorded once it has been sent.
    RecordsSent,
    /// No fault: all answers are alike.
    Alike,
    /// Another request runs.
    KeysByBody,
    /// Another request is refused with 409.
    WrongStatus,
    /// A refusal of another request deletes the record.
    RefusalForgets,
    /// Equal requests with two keys are one.
    IgnoresKey,
    /// Equal requests without a key are one.
    GuessesKey,
    ReplayWithoutBody,
    ReplayOtherStatus,
    ReplayOtherBody,
    /// The first replay is right, and each later one has another body.
    LaterReplaysOtherBody,
    /// The `Date` of the first answer is replayed.
    ReplaysDate,
    /// A retry of a request that has failed runs.
    RunsAfterFailure,
    /// A retry of a request that has failed before its effect is a success.
    ForgivesFailure,
    Replays429,
    /// A declined request is judged anew.
    ForgetsDeclined,
    /// A client that hangs up drops the run after its effect.
    DropsRuns,
    /// What came of half a body runs.
    TakesHalf,
    /// Keys are compared without case.
    LowersKeys,
    /// A replay leaves the body on the connection, and what follows is read as a part of it.
    LeavesBodies,
    /// Keys are cut after 64 characters.
    CutsKeys,
    /// An empty key is none.
    EmptyIsNone,
    /// A request with two keys runs as one without a key.
    MixesKeys,
    /// Rejections leave the body unread on the connection.
    LosesNext,
    /// Records live for a second.
    ForgetsSoon,
    /// Records are gone after a restart.
    ForgetsAtRestart,
    /// A request without a key runs, although one is required.
    RunsWithoutKey,
    /// JSON is compared by its bytes.
    ComparesBytes,
    /// A 5xx is recorded, although the profile has it otherwise.
    StoresFailure,
    /// Replays lack a header.
    DropsLocation,
    DropsETag,
    /// Of several lines of one header, replays have one, or have them in another order.
    KeepsOneLine,
    ReordersLines,
    /// Replays have the values split at their commas.
    SplitsValues,
    /// Replays have all cookies in one line.
    JoinsCookies,
    /// No fault: each answer has a number of its own.
    NumbersAnswers,
    /// Objects and lists in a body are not compared.
    ComparesShallow,
    /// The order of lists is not compared.
    SortsLists,
    /// A number is the string of its digits.
    ComparesTexts,
    /// Keys are cut after 40 characters, and long ones are refused.
    CutsShort,
    /// The last 64 characters of a key count.
    KeepsTails,
    /// Other characters than letters and digits don't count.
    IgnoresPunctuation,
    /// Blanks at the end of a key don't count.
    TrimsKeys,
    /// A long key is too much for the store.
    FailsLong,
    /// No fault: answers are of HTTP/1.0, whose connections end with them.
    OldHttp,
    /// No fault: keys are UUIDs, whose letters may be small or capital (RFC 9562, section 4).
    OnlyUuids,
    /// The first answer is marked as a replay.
    MarksFirst,
    /// A replay has the effect once more.
    RunsReplays,
    /// Replays have the members of an object in another order.
    ReordersMembers,
    /// A lock on a request that runs ends before it.
    LockLapses,
    /// Each request with a key that comes while its first one runs gets that one's answer: with any body, or of any
    /// account.
    JoinsBodies,
    JoinsAccounts,
    /// The answer of the operation that began last is that of each one under way.
    SharesAnswers,
    /// It is recorded for each one under way.
    RecordsOthers,
    /// The last 100 keys are known.
    ForgetsOldest,
    /// Texts are compared without case, or without blanks at their ends.
    IgnoresCase,
    TrimsTexts,
    /// Numbers are compared as doubles.
    ComparesDoubles,
    /// The first 1,024 bytes of a body are compared, in which no text may be long; or of its JSON.
    CutsBodies,
    CutsJson,
    /// Members that the first body does not have are not compared, or those that the other one does not have.
    IgnoresAdded,
    IgnoresAbsent,
    /// A key on any path is one, of any account.
    IgnoresPathAlone,
    /// A key of more than 255 characters is too much for the store.
    FailsLonger,
    /// Of a list, items that are there twice are compared once; or the order of texts is not compared; or the items
    /// that the shorter one has.
    DropsRepeats,
    SortsTexts,
    IgnoresLength,
    /// A truth value is the number 1 or 0, or its word; or what is not empty is true.
    ComparesTruthAsNumber,
    ComparesTruthAsText,
    ComparesTruthOfAll,
    /// A text that is no number is zero.
    ComparesTextsAsNumbers,
    /// A list of one item is that item.
    UnwrapsLists,
    /// Texts are compared without blanks at their beginnings, without one of two blanks, without what is not seen,
    /// without the width of letters, without accents, or in one form of Unicode.
    TrimsStarts,
    JoinsBlanks,
    IgnoresUnseen,
    IgnoresWidth,
    IgnoresAccents,
    ComparesForms,
    /// Keys are cut at the first of a character, or begin after the last one.
    CutsAt(char),
    BeginsAfter(char),
    /// `%41` in a key is `A`; `+` is a blank; blanks at the beginning, or all but one, don't count.
    DecodesKeys,
    DecodesPlus,
    TrimsStartsOfKeys,
    JoinsBlanksOfKeys,
    /// A key with other characters than letters, digits, `-`, `_` and this one is refused, and keys are cut at it.
    OnlyWith(char),
    /// Something else is around a server without a fault.
    Twisted(Twist),
}

/// The JSON as a server with this fault compares it.
pub(crate) fn compared(fault: Fault, json: &Value, depth: usize) -> Value {
    match json {
        Value::Object(_) | Value::Array(_) if fault == Fault::ComparesShallow && depth > 0 => Value::Null,
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), compared(fault, value, depth + 1))).collect()
        }
        Value::Array(items) => {
            let mut items: Vec<_> = items.iter().map(|item| compared(fault, item, depth + 1)).collect();
            if fault == Fault::SortsLists || fault == Fault::SortsTexts && items.iter().all(Value::is_string) {
                items.sort_by_key(Value::to_string);
            }
            if fault == Fault::DropsRepeats {
                items.dedup();
            }
            match (fault, items.as_slice()) {
                (Fault::UnwrapsLists, [only]) => only.clone(),
                _ => Value::Array(items),
            }
        }
        Value::Number(number) if fault == Fault::ComparesTexts => number.to_string().into(),
        Value::Number(number) if fault == Fault::ComparesDoubles => number.as_f64().into(),
        Value::String(text) if fault == Fault::IgnoresCase => text.to_lowercase().into(),
        Value::String(text) if fault == Fault::TrimsTexts => text.trim().into(),
        Value::String(text) => match fault {
            Fault::TrimsStarts => text.trim_start().into(),
            Fault::JoinsBlanks => text.replace("  ", " ").into(),
            Fault::IgnoresUnseen => text.replace('\u{200b}', "").into(),
            Fault::IgnoresWidth => text.chars().map(narrow).collect::<String>().into(),
            Fault::IgnoresAccents => text.replace("e\u{301}", "e").replace('\u{e9}', "e").into(),
            Fault::ComparesForms => text.replace("e\u{301}", "\u{e9}").into(),
            _ => json.clone(),
        },
        Value::Bool(is) if fault == Fault::ComparesTruthAsNumber => u8::from(*is).into(),
        Value::Bool(is) if fault == Fault::ComparesTruthAsText => is.to_string().into(),
        _ => json.clone(),
    }
}

fn narrow(letter: char) -> char {
    let narrow = u32::from(letter).checked_sub(0xfee0).filter(|code| (0x21..0x7f).contains(code));
    narrow.and_then(char::from_u32).unwrap_or(letter)
}

/// Whether a server with this fault takes two values for one.
fn loosely_equal(fault: Fault, one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let equal = |(name, value)| other.get(name).is_some_and(|other| loosely_equal(fault, value, other));
            one.len() == other.len() && one.iter().all(equal)
        }
        (Value::Array(one), Value::Array(other)) => {
            let is_as_long = one.len() == other.len() || fault == Fault::IgnoresLength;
            is_as_long && one.iter().zip(other).all(|(one, other)| loosely_equal(fault, one, other))
        }
        (Value::Bool(is), Value::Number(_) | Value::String(_))
        | (Value::Number(_) | Value::String(_), Value::Bool(is))
            if fault == Fault::ComparesTruthOfAll =>
        {
            let value = if one.is_boolean() { other } else { one };
            (value.as_f64() != Some(0.0) && value.as_str() != Some("")) == *is
        }
        (Value::String(text), Value::Number(number)) | (Value::Number(number), Value::String(text))
            if fault == Fault::ComparesTextsAsNumbers =>
        {
            number.as_f64() == Some(0.0) && text.parse::<f64>().is_err()
        }
        _ => one == other,
    }
}

/// Whether a server with one of these faults compares bodies by pairs.
pub(crate) fn compares_pairs(fault: Fault) -> bool {
    use Fault::{ComparesTextsAsNumbers, ComparesTruthOfAll, IgnoresAbsent, IgnoresAdded, IgnoresLength};
    let faults = [IgnoresAdded, IgnoresAbsent, IgnoresLength, ComparesTruthOfAll, ComparesTextsAsNumbers];
    faults.contains(&fault)
}

/// Whether a server with this fault takes two bodies for one, by the members of their first level.
pub(crate) fn are_one(fault: Fault, first: &str, other: &str) -> bool {
    let members = |body: &str| serde_json::from_str::<Map<String, Value>>(body).unwrap_or_default();
    let (first, other) = (members(first), members(other));
    let has_all =
        |one: Map<String, Value>, all: Map<String, Value>| one.iter().all(|(name, value)| all.get(name) == Some(value));
    match fault {
        Fault::IgnoresAdded => has_all(first, other),
        Fault::IgnoresAbsent => has_all(other, first),
        _ => loosely_equal(fault, &first.into(), &other.into()),
    }
}

/// Takes from a replay's headers what its store does not keep.
pub(crate) fn damage(fault: Fault, headers: &mut HeaderMap) {
    let links: Vec<_> = headers.get_all("link").iter().cloned().collect();
    match fault {
        Fault::DropsLocation => drop(headers.remove("location")),
        Fault::DropsETag => drop(headers.remove("etag")),
        Fault::KeepsOneLine if links.len() > 1 => drop(headers.insert("link", links[1].clone())),
        Fault::ReordersLines if links.len() > 1 => {
            headers.insert("link", links[1].clone());
            headers.append("link", links[0].clone());
        }
        Fault::SplitsValues => {
            if let Some(value) = headers.remove("last-modified") {
                for part in value.to_str().unwrap().split(',') {
                    headers.append("last-modified", part.trim().parse().unwrap());
                }
            }
        }
        Fault::JoinsCookies => drop(headers.insert("set-cookie", "a=1, b=2".parse().unwrap())),
        _ => {}
    }
}
