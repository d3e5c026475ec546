//! Each of these servers is broken in one way, and the check that is meant for it finds it.

use std::future::ready;

use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tempfile::tempdir;
use tower_idempotency_check::{Outcome, Plan, Report, Severity};

use super::fault::Fault;
use super::server::start;

/// What a plan for a server, with all kinds of requests that it knows, comes to.
async fn report(fault: Fault, profile: &str, only: &[&str], is_counted: bool) -> Report {
    report_with(fault, profile, only, is_counted, &[]).await
}

/// The same, with these lines in place of the plan's own. A name alone takes its line away.
pub(crate) async fn report_with(
    fault: Fault,
    profile: &str,
    only: &[&str],
    is_counted: bool,
    changes: &[&str],
) -> Report {
    let directory = tempdir().unwrap();
    let restarted = directory.path().join("restarted");
    let address = start(fault, profile == "acp", restarted.clone()).await;
    let only = only.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let plan = format!(
        r#"
        url = "http://{address}/charges"
        profile = "{profile}"
        data = '{{"amount":5,"currency":"usd","items":[{{"sku":"a"}},{{"sku":"b"}}],"to":{{"zip":7,"tags":["x","y"]}},"gift":true,"ref":9007199254740993}}'
        headers = ["Authorization: Bearer alice"]
        other_account = "Authorization: Bearer bob"
        other_path = "/refunds"
        {2}
        slow = '{{"amount":5,"kind":"slow"}}'
        declined = '{{"amount":5,"kind":"declined"}}'
        server_error = '{{"amount":5,"kind":"fails"}}'
        rate_limited = '{{"amount":5,"kind":"limited"}}'
        restart = "touch {0}"
        kill = "touch {0}"
        only = [{only}]
        {1}
        "#,
        restarted.display(),
        if only.contains("retention") { "retention = \"4s\"" } else { "" },
        if is_counted { "count = \"GET /charges\"" } else { "" },
    );
    let name = |line: &str| line.split('=').next().unwrap().trim().to_owned();
    let is_kept = |line: &&str| !changes.iter().any(|change| name(change) == name(line));
    let added = changes
        .iter()
        .filter(|change| change.contains('='))
        .map(|change| change.replace("ADDRESS", &address.to_string()));
    let plan: Vec<_> = plan.lines().filter(is_kept).map(str::to_owned).chain(added).collect();
    Plan::from_toml(&plan.join("\n")).unwrap().run(|_| {}).await
}

/// The names of the checks that are broken.
fn broken(report: &Report) -> Vec<&'static str> {
    let is_broken = |check: &&tower_idempotency_check::Checked| check.outcome == Outcome::Broken;
    report.checks.iter().filter(is_broken).map(|check| check.name).collect()
}

macro_rules! controls {
    ($($fault:ident $(($of:literal))?, $profile:literal: $check:literal, $what:literal;)*) => {
        /// The faults, the profile and the check that are meant for each, and what is wrong.
        const CONTROLS: &[(Fault, &str, &str, &str)] = &[$((Fault::$fault $(($of))?, $profile, $check, $what)),*];
    };
}

controls! {
    RunsProbes, "draft": "probe", "a probe runs, although the server says that it has them";
    NoKeys, "draft": "same-key-again", "keys are not looked at";
    RecordsLate, "draft": "at-once", "the key is recorded after the effect only";
    SecondCopyRuns, "draft": "at-once", "2 of 100 copies at once run";
    CopiesFail, "draft": "at-once", "copies of a request in flight get a 500";
    CopiesDiffer, "draft": "at-once", "copies of a request in flight get a success of their own";
    SaysSoon, "draft": "in-flight", "`Retry-After` is a word";
    IgnoresAccount, "draft": "other-account", "another account gets the first one's answer";
    IgnoresBody, "draft": "other-body", "another body gets the first one's answer: keyed by the header alone";
    IgnoresMethod, "draft": "other-method", "another method gets the first one's answer";
    IgnoresPath, "draft": "other-path", "another path gets the first one's answer";
    MalformedIsNone, "acp": "key-malformed", "a key whose quotes do not end is taken for none, and the request runs";
    RecordsSent, "draft": "answer-swallowed", "an answer is recorded once it is sent, so that one which is cut is lost";
    IgnoresQuery, "draft": "other-query", "another query gets the first one's answer";
    KeysByBody, "draft": "other-body", "another body runs, as the key and the body are the key";
    WrongStatus, "draft": "other-body", "another body is refused with 409, which a client takes for \"wait\"";
    RefusalForgets, "draft": "other-body", "a refusal of another body deletes the record";
    IgnoresKey, "draft": "new-key", "equal requests with two keys are one";
    GuessesKey, "draft": "key-missing", "equal requests without a key are one";
    ReplayWithoutBody, "draft": "same-key-again", "a replay has no body";
    ReplayOtherStatus, "draft": "same-key-again", "a replay has another status";
    ReplayOtherBody, "draft": "same-key-again", "a replay has another body";
    LaterReplaysOtherBody, "draft": "answer-swallowed", "the second replay has another body than the first";
    ReplaysDate, "draft": "replayed-headers", "a replay has the `Date` of the first answer";
    RunsAfterFailure, "draft": "server-error", "a retry after a 500 runs again";
    ForgivesFailure, "draft": "server-error", "a 500 is replayed as a success, and nothing was done";
    Replays429, "stripe": "rate-limited", "a 429 is replayed";
    ForgetsDeclined, "draft": "declined", "a declined request is judged anew";
    DropsRuns, "draft": "hang-up-before-answer", "a client that hangs up drops its run after the effect";
    TakesHalf, "draft": "truncated-body", "half a body runs";
    // inclusionAI/Avernet#789 and philfanzhou/StructaDoc#26, of columns without a binary collation.
    LowersKeys, "draft": "key-case", "keys are compared without case";
    LeavesBodies, "draft": "connection-after-replay", "a replay leaves the request's body on the connection";
    CutsKeys, "draft": "key-long", "keys are cut after 64 characters";
    EmptyIsNone, "acp": "key-empty", "an empty key is taken for none, and the request runs";
    MixesKeys, "acp": "key-doubled", "a request with two keys runs without one";
    LosesNext, "draft": "connection-after-rejection", "a rejection leaves a body unread, and the next request on the connection is lost";
    ForgetsSoon, "draft": "retention", "a record is gone before its retention is over";
    ForgetsAtRestart, "draft": "restart", "records are gone after a restart";
    ForgetsAtRestart, "draft": "kill", "records are gone after a kill";
    SharesCookies, "draft": "other-account", "another account gets the first one's session";
    RunsWithoutKey, "acp": "key-missing", "a request without a key runs, although one is required";
    ComparesBytes, "acp": "same-meaning", "JSON is compared by its bytes";
    StoresFailure, "acp": "server-error", "a 5xx is stored and replayed";
    // VSN2015/concerns_on_rails#47, and fullstackhero/dotnet-starter-kit#1333 with the next one.
    DropsLocation, "draft": "same-key-again", "a replay lacks `Location`";
    DropsETag, "acp": "same-key-again", "a replay lacks `ETag`";
    // benoitc/hornbeam#10, of a server whose headers were a map.
    KeepsOneLine, "draft": "same-key-again", "a replay has one of two lines of a header";
    ReordersLines, "draft": "same-key-again", "a replay has the lines of a header in another order";
    // gofiber/fiber#4693, of Set-Cookie and Content-Disposition.
    SplitsValues, "draft": "same-key-again", "a replay has a value split at its comma";
    // webrecorder/archiveweb.page#19, of a store of answers.
    JoinsCookies, "draft": "replayed-headers", "a replay has two cookies in one line";
    // NVIDIA/NemoClaw#1778, a review of JSON.stringify with the names of the first level.
    ComparesShallow, "draft": "other-detail", "what is deeper in a body is not compared";
    // aws-powertools/powertools-lambda-typescript#2570 sorts payloads before they are hashed.
    SortsLists, "draft": "other-detail", "the order of a list is not compared";
    // ravendb/ravendb-nodejs-client#320, of a hash by which 1 and '1' are equal.
    ComparesTexts, "draft": "other-detail", "a number and the string of its digits are equal";
    // Supercompress/Supercompress#110 cuts after 40.
    CutsShort, "draft": "key-pairs", "keys are cut after 40 characters, and long ones are refused";
    KeepsTails, "draft": "key-pairs", "the last 64 characters of a key count";
    // 3rd-Eden/memcached#235, of keys that a cache does not take as they are.
    IgnoresPunctuation, "draft": "key-pairs", "letters and digits of a key count only";
    // akira-io/laravel-sisp#229, of keys that are trimmed and no more.
    TrimsKeys, "draft": "key-pairs", "blanks at the end of a key are trimmed";
    // triggerdotdev/trigger.dev#3560, of an index with a longest entry.
    FailsLong, "draft": "key-pairs", "a long key gets a 500";
    MarksFirst, "draft": "same-key-again", "the first answer is marked as a replay";
    RunsReplays, "draft": "same-key-again", "a retry gets the first answer, and has the effect once more";
    // A column of PostgreSQL's jsonb keeps no order of members.
    ReordersMembers, "draft": "same-key-again", "a replay has the members of its JSON in another order";
    LockLapses, "draft": "in-flight", "a lock ends before the request that holds it, and a copy runs";
    JoinsBodies, "draft": "in-flight-others", "another body gets the answer of the request that runs, and waits for it";
    JoinsAccounts, "draft": "in-flight-others", "another account gets the answer of the request that runs, and waits for it";
    SharesAnswers, "draft": "keys-at-once", "requests with other keys at once get the answer of the last one";
    RecordsOthers, "draft": "keys-at-once", "the answer of the last of several requests at once is recorded for all their keys";
    ForgetsOldest, "draft": "after-many-keys", "the last 100 keys are known";
    IgnoresCase, "draft": "other-detail", "strings in a body are compared without case";
    TrimsTexts, "draft": "other-detail", "blanks at the ends of strings are not compared";
    ComparesDoubles, "draft": "other-detail", "numbers are compared as doubles, beyond what these hold";
    CutsBodies, "draft": "other-detail", "the first 1,024 bytes of a body are compared";
    CutsJson, "draft": "other-detail", "the first 1,024 bytes of the JSON are compared, without blanks";
    IgnoresAdded, "draft": "other-detail", "a member that the first body does not have is not compared";
    IgnoresAbsent, "draft": "other-detail", "a member that the other body does not have is not compared";
    DropsRepeats, "draft": "other-detail", "how often an item is in a list is not compared";
    SortsTexts, "draft": "other-detail", "the order of strings in a list is not compared";
    IgnoresLength, "draft": "other-detail", "lists are compared as far as the shorter one goes";
    UnwrapsLists, "draft": "other-detail", "a list of one item is that item";
    ComparesTruthAsNumber, "draft": "other-detail", "true is 1, and false is 0";
    ComparesTruthAsText, "draft": "other-detail", "true is the string of that word";
    ComparesTruthOfAll, "draft": "other-detail", "what is neither empty nor zero is true";
    ComparesTextsAsNumbers, "draft": "other-detail", "a string without digits is zero";
    TrimsStarts, "draft": "other-detail", "blanks before strings are not compared";
    JoinsBlanks, "draft": "other-detail", "two blanks in a string are one";
    IgnoresUnseen, "draft": "other-detail", "characters of no width are not compared";
    IgnoresWidth, "draft": "other-detail", "letters of full width are those of half";
    IgnoresAccents, "draft": "other-detail", "accents are not compared";
    ComparesForms, "draft": "other-detail", "strings are brought to one form of Unicode";
    CutsAt(':'), "draft": "key-pairs", "keys are cut at a separator";
    BeginsAfter('/'), "draft": "key-pairs", "what comes after the last separator of a key counts";
    OnlyWith(';'), "draft": "key-pairs", "keys are cut at a separator, and other separators are refused";
    DecodesKeys, "draft": "key-pairs", "keys are percent-decoded";
    DecodesPlus, "draft": "key-pairs", "`+` in a key is a blank";
    TrimsStartsOfKeys, "draft": "key-pairs", "blanks at the beginning of a key are trimmed";
    JoinsBlanksOfKeys, "draft": "key-pairs", "two blanks in a key are one";
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_server_is_found_by_the_check_meant_for_it() {
    let controls = CONTROLS.iter().map(|(fault, profile, check, _)| async move {
        let report = report(*fault, profile, &[check], true).await;
        let is_found = broken(&report) == [*check] && report.exit_code() == 1;
        (!is_found).then(|| format!("{fault:?} by {check}: {}", report.to_text()))
    });
    // So many at once as let a request that comes meanwhile come meanwhile.
    let missed: Vec<_> = stream::iter(controls).buffer_unordered(16).filter_map(ready).collect().await;
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_look_at_keys_is_one_finding_and_what_follows_from_it() {
    for (profile, least) in [("draft", 5), ("acp", 8)] {
        let report = report(Fault::NoKeys, profile, &[], true).await;
        let text = report.to_text();
        assert_eq!(report.exit_code(), 1, "{text}");
        let of_its_own = report.checks.iter().filter(|check| check.follows_from.is_none());
        let of_its_own: Vec<_> = of_its_own.filter(|check| check.outcome == Outcome::Broken).collect();
        assert_eq!(of_its_own.iter().map(|check| check.name).collect::<Vec<_>>(), ["same-key-again"], "{text}");
        let [finding] = &of_its_own[0].findings[..] else { panic!("{text}") };
        assert!(finding.what.contains("the server does not look at keys"), "{text}");
        let follow: Vec<_> =
            report.checks.iter().filter(|check| check.follows_from == Some("same-key-again")).collect();
        assert!(follow.len() >= least, "{text}");
        let sum = format!("1 broken and {} that follow from it,", follow.len());
        let (below, _) =
            text.split_once("  what follows from it:\n").map(|(_, below)| below.split_once("\n\n").unwrap()).unwrap();
        let (junit, html) = (report.to_junit(), report.to_html());
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert!(text.contains(&sum) && html.contains(&sum), "{text}");
        assert!(junit.contains("failures=\"1\"") && junit.matches("<failure").count() == 1, "{junit}");
        assert_eq!(html.matches("class=\"broken\"").count(), 1, "{html}");
        let cause = html.find("<h2>same-key-again</h2>").unwrap();
        for check in follow {
            assert!(below.contains(&format!("    {}: ", check.name)), "{}: {text}", check.name);
            assert!(!text.contains(&format!("---- {} ", check.name)), "{}: {text}", check.name);
            assert!(check.line().ends_with("BROKEN, which follows from same-key-again"), "{}", check.line());
            assert!(junit.contains(&format!("follows: {}: ", check.name)), "{}: {junit}", check.name);
            let section = html.find(&format!("<h2>{}</h2>", check.name)).unwrap();
            assert!(cause < section && section < html.find("<h2>new-key</h2>").unwrap(), "{}: {html}", check.name);
            let listed = json["checks"].as_array().unwrap().iter().find(|listed| listed["name"] == check.name).unwrap();
            assert_eq!(listed["follows_from"], "same-key-again", "{listed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_differs_in_one_way_is_one_finding_and_what_follows_from_it() {
    for fault in [Fault::ReordersMembers, Fault::DropsLocation] {
        let report = report(fault, "draft", &[], true).await;
        let text = report.to_text();
        let of_its_own = report.checks.iter().filter(|check| check.follows_from.is_none());
        let of_its_own: Vec<_> = of_its_own.filter(|check| check.outcome == Outcome::Broken).collect();
        assert_eq!(of_its_own.iter().map(|check| check.name).collect::<Vec<_>>(), ["same-key-again"], "{text}");
        let wrong = of_its_own[0].findings.iter().filter(|finding| finding.severity == Severity::Wrong);
        assert_eq!((wrong.count(), report.exit_code()), (1, 1), "{text}");
        assert!(text.contains("    other-body: wrong: a retry"), "{text}");
    }
    // Without that check, it is found where it is seen.
    let report = report(Fault::DropsLocation, "draft", &["other-body"], true).await;
    assert_eq!(broken(&report), ["other-body"], "{}", report.to_text());
    assert!(report.checks.iter().all(|check| check.follows_from.is_none()), "{}", report.to_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finding_of_a_header_says_what_was_first_and_what_came_again() {
    for (profile, severity) in [("draft", "wrong"), ("acp", "wrong"), ("stripe", "note")] {
        let text = report(Fault::DropsLocation, profile, &["same-key-again"], true).await.to_text();
        let what = "a retry's answer lacks the header location: first \"/charges/1\", and then none";
        assert!(text.contains(&format!("{severity}: {what}")), "{profile}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finding_says_what_the_server_does() {
    let early = "a key is forgotten before its retention is over";
    for (fault, check, severity, what) in [
        // It looks at keys.
        (Fault::RunsReplays, "same-key-again", "DANGEROUS", "three requests with one key have 3 effects\n"),
        (Fault::ForgetsSoon, "retention", "DANGEROUS", early),
        (Fault::OnlyBare, "works", "note", "a key in quotes is not honoured, and a bare one is"),
    ] {
        let text = report(fault, "draft", &[check], true).await.to_text();
        assert!(text.contains(&format!("{severity}: {what}")), "{fault:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_count_effects_are_inferred_from_answers_that_differ() {
    for (fault, check) in [(Fault::NoKeys, "same-key-again"), (Fault::RecordsLate, "at-once")] {
        let report = report(fault, "draft", &[check], false).await;
        assert_eq!((broken(&report), report.exit_code()), (vec![check], 1), "{}", report.to_text());
        assert!(report.to_text().contains("(inferred: the answers differ)"), "{}", report.to_text());
    }
    // Where they don't differ, nothing is inferred, and nothing is called kept.
    let alike = report(Fault::Alike, "draft", &["same-key-again"], false).await;
    assert_eq!(alike.exit_code(), 2, "{}", alike.to_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_was_asked_for_and_can_t_run_is_no_success() {
    let report = report(Fault::None, "acp", &["other-query"], true).await;
    assert_eq!((broken(&report), report.exit_code()), (Vec::new(), 2), "{}", report.to_text());
}

#[test]
fn a_plan_says_what_is_wrong_with_it_and_repeats_no_secret() {
    let base = "url = \"http://127.0.0.1:1/\"\n";
    for (line, said) in [
        ("headers = [\"s3cr3t\"]", "Authorization: Bearer a"),
        ("headers = \"s3cr3t\"", "line 2 "),
        ("url = \"http://me:s3cr3t@host/\"", "line 2 "),
        ("[[endpoint]]\nmax_requests = 3", "max_requests is for the whole plan"),
        ("retention = \"24h\"", "at most 10 minutes"),
        ("other_path = \"refunds\"", "/refunds"),
        ("method = \"a b\"", "\"a b\" is not a method"),
    ] {
        let error = Plan::from_toml(&format!("{base}{line}\n")).unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains("s3cr3t"), "{line}: {error}");
    }
    let error = Plan::from_toml("url = \"http://me:s3cr3t@host/\"").unwrap_err().to_string();
    assert!(!error.contains("s3cr3t"), "{error}");
}

#[test]
fn the_guide_lists_every_control() {
    let guide = include_str!("../../../../docs/check.md");
    for (fault, profile, check, what) in CONTROLS {
        let row = format!("| {what} | {profile} | `{check}` |\n");
        assert!(guide.contains(&row), "{fault:?}: {row}");
    }
    let rows = guide.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |")).count();
    assert_eq!(rows, CONTROLS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_fault_keeps_every_check() {
    let servers = [
        (Fault::None, "draft"),
        (Fault::None, "acp"),
        (Fault::OnlyQuoted, "draft"),
        (Fault::OnlyBare, "draft"),
        (Fault::Alike, "draft"),
        (Fault::NumbersAnswers, "draft"),
        (Fault::OldHttp, "draft"),
        (Fault::OnlyUuids, "draft"),
    ];
    let checked = servers.map(|(fault, profile)| async move {
        let report = report(fault, profile, &[], true).await;
        assert_eq!((broken(&report), report.exit_code()), (Vec::new(), 0), "{}", report.to_text());
        assert!(
            report
                .checks
                .iter()
                .all(|check| check.findings.is_empty() || profile == "draft" || check.name == "server-error"),
            "{}",
            report.to_text()
        );
        let skipped = report.checks.iter().filter(|check| matches!(check.outcome, Outcome::Skipped(_)));
        let skipped: Vec<_> = skipped.map(|check| check.name).collect();
        let skips = ["probe", "other-query", "retention", if fault == Fault::OnlyUuids { "key-case" } else { "" }];
        assert!(skipped.iter().all(|name| skips.contains(name)), "{skipped:?}");
    });
    futures_util::future::join_all(checked).await;
}
