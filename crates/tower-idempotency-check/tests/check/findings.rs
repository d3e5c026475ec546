//! What a check finds of a server: all of it, how bad each finding is, and the exit code.

use std::future::ready;

use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;
use tower_idempotency_check::{Finding, Severity};

use super::controls::report_with;
use super::fault::Fault::{self, Twisted};
use super::twist::Twist;

/// The fault, the profile, the check, the exit code, and the beginning of each finding.
type Row = (Fault, &'static str, &'static str, u8, &'static [&'static str]);

macro_rules! findings {
    ($name:ident: $($fault:expr, $profile:literal, $check:literal: $code:literal, [$($finding:literal),* $(,)?];)*) => {
        const $name: &[Row] = &[$(($fault, $profile, $check, $code, &[$($finding),*])),*];
    };
}

findings! { RETRIES:
    Fault::None, "draft", "works": 0, [];
    Fault::None, "acp", "works": 0, [];
    Fault::None, "stripe", "works": 0, ["note: the answer does not repeat the key"];
    Twisted(Twist::RefusesQuotes), "draft", "works": 0, ["note: a key in quotes is not honoured"];
    Fault::None, "draft", "same-key-again": 0, [];
    Fault::OnlyBare, "acp", "same-key-again": 0, [];
    Fault::ReplayWithoutBody, "draft", "same-key-again": 1, ["wrong: a retry gets another body: 201"];
    Fault::ReplayOtherBody, "draft", "same-key-again": 1, ["wrong: a retry gets the same JSON, written"];
    Fault::NumbersAnswers, "draft", "same-key-again": 0, ["note: these headers differ"];
    Twisted(Twist::NumbersAndDrops), "draft", "same-key-again": 1, [
        "wrong: a retry's answer lacks the header location",
        "note: these headers differ from one replay to the next, and are not compared: x-instance",
    ];
    Twisted(Twist::LaterOtherStatus), "draft", "same-key-again": 1, [
        "wrong: a retry's answer differs in the header x-instance",
        "wrong: a retry gets 202",
        "wrong: a retry's answer differs in the header x-instance",
    ];
    Twisted(Twist::NoMarks), "draft", "same-key-again": 0, ["note: a client can't see that the second"];
    Twisted(Twist::RefusesRetries), "draft", "same-key-again": 1, [
        "wrong: a retry gets 400",
        "wrong: a retry's answer lacks the header last-modified",
        "wrong: a retry's answer lacks the header link",
        "wrong: a retry's answer lacks the header location",
    ];
    Fault::None, "draft", "new-key": 0, [];
    Twisted(Twist::RefusesFourth), "draft", "new-key": 1, ["wrong: the same request with a new key is refused: 400"];
    Twisted(Twist::PairsKeys), "draft", "new-key": 1, ["DANGEROUS: two orders with two keys are taken for one"];
    Fault::None, "draft", "key-missing": 0, [];
    Twisted(Twist::RefusesPlainAgain), "draft", "key-missing": 0, [];
    Twisted(Twist::OtherCode), "acp", "key-missing": 1, ["wrong: a request without a key gets 400"];
    Fault::RunsWithoutKey, "acp", "key-missing": 1, [
        "wrong: a request without a key gets 201",
        "DANGEROUS: a request without a key has an effect",
    ];
    Fault::None, "draft", "key-empty": 0, [];
    Twisted(Twist::RunsEmpty), "draft", "key-empty": 1, ["DANGEROUS: an empty key is refused, and has an effect"];
    Twisted(Twist::FailsEmpty), "draft", "key-empty": 1, ["wrong: an empty key gets 500"];
    Twisted(Twist::TakesEmpty), "draft", "key-empty": 0, [
        "note: with an empty key, the request runs as one with a key: 201",
    ];
    Twisted(Twist::TakesEmpty), "acp", "key-empty": 1, [
        "DANGEROUS: with an empty key, the request runs as one with a key: 201",
    ];
    Fault::EmptyIsNone, "acp", "key-empty": 1, [
        "DANGEROUS: with an empty key, the request runs as one without a key: two have 2 effects",
    ];
    Fault::FailsLonger, "draft", "key-long": 1, ["wrong: a key of 1,000 characters gets 500"];
    Fault::OnlyQuoted, "draft", "key-quoted": 0, ["note: the same key without quotes is no key, or another one"];
    Fault::OnlyBare, "draft", "key-quoted": 0, ["note: the same key in quotes is no key, or another one"];
}

findings! { OTHERS:
    Fault::RefusalForgets, "draft", "other-body": 1, [
        "wrong: a retry gets another body: 201",
        "DANGEROUS: after another body, the first request runs again",
    ];
    Twisted(Twist::RunsRefused), "draft", "other-body": 1, [
        "DANGEROUS: another body with the key of the first request has an effect",
    ];
    Twisted(Twist::RunsRefused), "draft", "other-detail": 1, [
        "DANGEROUS: a body that differs in a detail is refused, and has an effect",
    ];
    Twisted(Twist::RunsRefused), "draft", "in-flight-others": 1, [
        "DANGEROUS: another body, sent while the first request runs, runs too: 422",
    ];
    Fault::ReplayOtherBody, "draft", "in-flight-others": 1, [
        "wrong: a retry gets the same JSON, written",
        "wrong: a retry gets the same JSON, written",
    ];
    Fault::None, "draft", "other-path": 0, [];
    Fault::IgnoresPathAlone, "acp", "other-path": 1, ["DANGEROUS: another path gets the answer of the first one"];
    Twisted(Twist::RefusesPath), "acp", "other-path": 1, ["wrong: a key on another path is refused: 422"];
    Twisted(Twist::SharesAndRuns), "draft", "other-account": 1, [
        "DANGEROUS: another account with the same key gets the answer of the first one",
        "DANGEROUS: after another account, the first request runs again",
    ];
    Twisted(Twist::OwnCookies), "draft", "other-account": 0, [];
    Fault::KeysByBody, "acp", "same-meaning": 1, [
        "wrong: a retry gets another body: 201",
        "DANGEROUS: the same JSON, written in another way, runs again",
    ];
    Fault::None, "draft", "replayed-headers": 0, [];
    Twisted(Twist::DatesTwice), "draft", "replayed-headers": 1, ["wrong: a replay has Date or Content-Length twice"];
    Twisted(Twist::ReplaysHop), "draft", "replayed-headers": 0, [
        "note: a replay has the hop-by-hop header proxy-authenticate",
    ];
    Twisted(Twist::OwnHop), "draft", "replayed-headers": 0, [];
    Twisted(Twist::CookieOnReplay), "draft", "replayed-headers": 0, [];
    Twisted(Twist::OwnCookies), "draft", "replayed-headers": 0, ["note: a replay has Set-Cookie"];
}

findings! { CROWDS:
    Fault::None, "draft", "at-once": 0, [];
    Fault::SaysSoon, "draft", "at-once": 1, ["wrong: Retry-After is neither seconds nor a date"];
    Twisted(Twist::LosesSlow), "draft", "at-once": 1, ["DANGEROUS: 100 copies at once have no effect at all"];
    Twisted(Twist::CutsHundred), "draft", "at-once": 2, ["note: 100 of 100 copies get no answer"];
    Twisted(Twist::CutsCopies), "draft", "at-once": 0, ["note: 99 of 100 copies get no answer"];
    Twisted(Twist::PairsAnswers), "draft", "keys-at-once": 1, [
        "DANGEROUS: of 50 requests with keys of their own at once, 48 get the answer",
    ];
    Fault::ReplayWithoutBody, "draft", "keys-at-once": 1, ["wrong: a retry gets another body: 201"];
    Fault::RecordsOthers, "draft", "keys-at-once": 1, [
        "DANGEROUS: after requests with keys of their own at once, a key's retry gets the answer of another key",
    ];
    Fault::ForgetsOldest, "draft", "after-many-keys": 1, [
        "wrong: a retry gets another body: 201",
        "DANGEROUS: after 300 other keys, the first request runs again",
    ];
}

findings! { CLIENTS:
    Twisted(Twist::LosesSlow), "draft", "hang-up-before-answer": 1, [
        "DANGEROUS: a client that hangs up while the request runs: the retry gets 201",
    ];
    Twisted(Twist::FailsSlow), "draft", "hang-up-before-answer": 1, [
        "wrong: a client that hangs up while the request runs: the retry gets 500",
    ];
    Fault::None, "draft", "answer-swallowed": 0, [];
    Twisted(Twist::NoMarks), "draft", "answer-swallowed": 0, ["note: the replay of a swallowed answer is not marked"];
    Twisted(Twist::RefusesRetries), "draft", "answer-swallowed": 1, [
        "DANGEROUS: a client whose answer is swallowed: it was done, and the retry gets 400",
    ];
    Twisted(Twist::LaterOtherStatus), "draft", "answer-swallowed": 1, [
        "wrong: a client whose answer is swallowed: a second retry gets another answer: 202",
    ];
    Fault::RecordsSent, "draft", "answer-swallowed": 1, [
        "DANGEROUS: a client whose answer is swallowed: the request and its retry have 2 effects",
    ];
    Fault::TakesHalf, "draft", "truncated-body": 1, [
        "wrong: after half a body, the whole request gets 422",
        "DANGEROUS: half a body and then the whole request have 1 effects",
    ];
    Twisted(Twist::CutsRejections), "draft", "connection-after-rejection": 1, [
        "wrong: a rejection does not reach its client",
    ];
    Fault::OldHttp, "draft", "connection-after-replay": 0, [];
    Twisted(Twist::CutsReplays), "draft", "connection-after-replay": 1, ["wrong: a replay does not reach its client"];
}

// What is waited for here takes seconds, or has to come while a request runs.
findings! { LATE:
    Fault::None, "draft", "in-flight": 0, [];
    Fault::CopiesFail, "draft", "in-flight": 1, ["wrong: a retry while the first request runs gets 500"];
    Twisted(Twist::SaysEarly), "draft", "in-flight": 0, ["note: a retry while the first request runs gets 425"];
    Fault::SecondCopyRuns, "draft", "in-flight": 1, [
        "wrong: a retry gets another body: 201",
        "DANGEROUS: retries while the first request runs lead to",
    ];
    Fault::None, "draft", "retention": 0, ["note: after its retention a key is still known: 201"];
    Fault::ForgetsSoon, "draft", "retention": 1, [
        "wrong: a retry gets another body: 201",
        "DANGEROUS: a key is forgotten before its retention is over",
    ];
    Fault::None, "acp", "server-error": 0, ["note: 15 s after a failed request, its retry still gets 409"];
    Twisted(Twist::StaysStuck), "draft", "kill": 1, [
        "note: 15 s after a kill, its retry still gets 409",
        "wrong: a retry gets 409",
        "wrong: a retry's answer lacks the header last-modified",
        "wrong: a retry's answer lacks the header link",
        "wrong: a retry's answer lacks the header location",
    ];
}

// Without a count.
findings! { UNCOUNTED:
    Twisted(Twist::FailsSlow), "draft", "at-once": 1, ["wrong: a copy gets 500"];
    Fault::None, "draft", "restart": 0, [];
}

// Each kind of detail is named. Another detail that the server takes for the same would be found before.
findings! { DETAILS:
    Fault::None, "draft", "other-detail": 0, [];
    Fault::ComparesShallow, "draft", "other-detail": 1, ["DANGEROUS: another value at depth 2"];
    Fault::SortsLists, "draft", "other-detail": 1, ["DANGEROUS: another order of a list gets"];
    Fault::SortsTexts, "draft", "other-detail": 1, ["DANGEROUS: another order of a list gets"];
    Fault::DropsRepeats, "draft", "other-detail": 1, ["DANGEROUS: a list with its last item twice gets"];
    Fault::IgnoresLength, "draft", "other-detail": 1, ["DANGEROUS: a list with its last item twice gets"];
    Fault::ComparesTexts, "draft", "other-detail": 1, ["DANGEROUS: a number as a string gets"];
    Fault::ComparesTruthOfAll, "draft", "other-detail": 1, ["DANGEROUS: a number as a truth value gets"];
    Fault::ComparesTextsAsNumbers, "draft", "other-detail": 1, ["DANGEROUS: a string as a number gets"];
    Fault::UnwrapsLists, "draft", "other-detail": 1, ["DANGEROUS: a string as a list of it gets"];
    Fault::ComparesTruthAsText, "draft", "other-detail": 1, ["DANGEROUS: a truth value as a string gets"];
    Fault::ComparesTruthAsNumber, "draft", "other-detail": 1, ["DANGEROUS: a truth value as a number gets"];
    Fault::ComparesDoubles, "draft", "other-detail": 1, ["DANGEROUS: another last digit of a number"];
    Fault::IgnoresAbsent, "draft", "other-detail": 1, ["DANGEROUS: JSON without one of its members gets"];
    Fault::IgnoresCase, "draft", "other-detail": 1, ["DANGEROUS: strings in other letters get"];
    Fault::TrimsTexts, "draft", "other-detail": 1, ["DANGEROUS: strings with a blank at their ends get"];
    Fault::TrimsStarts, "draft", "other-detail": 1, ["DANGEROUS: strings with a blank before them get"];
    Fault::IgnoresUnseen, "draft", "other-detail": 1, ["DANGEROUS: strings with a character that is not seen get"];
    Fault::IgnoresWidth, "draft", "other-detail": 1, ["DANGEROUS: strings in letters of full width get"];
    Fault::CutsBodies, "draft", "other-detail": 1, ["DANGEROUS: a difference after 9,000 blanks gets"];
    Fault::CutsJson, "draft", "other-detail": 1, ["DANGEROUS: a difference after 1,100 characters"];
    Fault::JoinsBlanks, "draft", "other-detail": 1, ["DANGEROUS: a string with a blank less between its words gets"];
    Fault::IgnoresAccents, "draft", "other-detail": 1, ["DANGEROUS: a string with a letter less its accent gets"];
    Fault::ComparesForms, "draft", "other-detail": 1, ["DANGEROUS: a string with a letter in another form of Unicode"];
    Fault::IgnoresAdded, "draft", "other-detail": 1, ["DANGEROUS: JSON with a member more gets"];
}

findings! { KEYS:
    Fault::None, "draft", "key-pairs": 0, [];
    Fault::None, "acp", "key-pairs": 0, [];
    Fault::OnlyBare, "draft", "key-pairs": 0, [];
    Fault::DecodesKeys, "draft", "key-pairs": 1, [
        "DANGEROUS: two keys are one, and the operation of the second is taken for done, if they differ in `%41` for `A`",
    ];
    Fault::TrimsKeys, "draft", "key-pairs": 1, [
        "DANGEROUS: two keys are one, and the operation of the second is taken for done, if they differ in a blank at the end",
    ];
    Fault::TrimsStartsOfKeys, "draft", "key-pairs": 1, [
        "DANGEROUS: two keys are one, and the operation of the second is taken for done, if they differ in a blank at the beginning",
    ];
    Fault::JoinsBlanksOfKeys, "draft", "key-pairs": 1, [
        "DANGEROUS: two keys are one, and the operation of the second is taken for done, if they differ in a second blank",
    ];
    Fault::DecodesPlus, "draft", "key-pairs": 1, [
        "DANGEROUS: two keys are one, and the operation of the second is taken for done, if they differ in `+` for a blank",
    ];
}

/// What is not as its row says.
async fn differing(rows: &[Row], is_counted: bool) -> String {
    // A machine that is busy with all at once sends a retry too late.
    static AT_ONCE: Semaphore = Semaphore::const_new(6);
    let rows = rows.iter().map(|(fault, profile, name, code, expected)| async move {
        let _permit = AT_ONCE.acquire().await.unwrap();
        let report = report_with(*fault, profile, &[name], is_counted, &[]).await;
        let check = report.checks.iter().find(|check| check.name == *name);
        let findings = check.map_or(&[][..], |check| &check.findings);
        let begins = |(finding, beginning): (&Finding, &&str)| {
            let severity = match finding.severity {
                Severity::Note => "note",
                Severity::Wrong => "wrong",
                _ => "DANGEROUS",
            };
            format!("{severity}: {}", finding.what).starts_with(beginning)
        };
        let is_as_said = report.exit_code() == *code
            && findings.len() == expected.len()
            && findings.iter().zip(expected.iter()).all(begins)
            && check.is_some_and(|check| *name == "same-key-again" || check.follows_from.is_none());
        (!is_as_said)
            .then(|| format!("{fault:?} {profile} {name}, exit code {}: {}", report.exit_code(), report.to_text()))
    });
    let differing = futures_util::future::join_all(rows).await;
    differing.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_found_of_retries_and_keys_is_what_the_server_does() {
    assert_eq!(differing(RETRIES, true).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_found_of_other_requests_with_a_key_is_what_the_server_does() {
    assert_eq!(differing(OTHERS, true).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_found_of_many_requests_at_once_is_what_the_server_does() {
    assert_eq!(differing(CROWDS, true).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_found_of_clients_that_go_away_is_what_the_server_does() {
    assert_eq!(differing(CLIENTS, true).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_found_of_what_runs_or_ends_late_is_what_the_server_does() {
    assert_eq!(differing(LATE, true).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_found_without_a_count_is_what_the_answers_say() {
    assert_eq!(differing(UNCOUNTED, false).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_detail_that_a_server_does_not_compare_is_named() {
    assert_eq!(differing(DETAILS, true).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_in_which_a_server_reads_keys_is_named() {
    assert_eq!(differing(KEYS, true).await, "");
}

// Each character that may separate but `-`, which the keys of the check have in them.
#[tokio::test(flavor = "multi_thread")]
async fn the_separator_at_which_a_server_cuts_keys_is_named() {
    let faults = ",;:./_|#&=+@~%*!?$ ".chars().flat_map(|of| {
        [(Fault::CutsAt(of), "after"), (Fault::BeginsAfter(of), "before"), (Fault::OnlyWith(of), "after")]
            .map(|(fault, place)| (fault, format!("{place} `{of}`")))
    });
    let wrong = faults.map(|(fault, alone)| async move {
        let report = report_with(fault, "draft", &["key-pairs"], true, &[]).await;
        let mut found = report.checks.iter().flat_map(|check| &check.findings);
        // Behind the group of all of them, each by itself.
        let is_named = found.any(|finding| finding.what.split("; ").any(|differ| differ.ends_with(&alone)));
        (!is_named).then(|| format!("{fault:?}: {}", report.to_text()))
    });
    let wrong: Vec<_> = stream::iter(wrong).buffer_unordered(8).filter_map(ready).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
