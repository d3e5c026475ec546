//! The tests of the checker that judges all laboratories: it finds each kind of bad history, and passes the good ones.

mod figures;

use std::collections::BTreeMap;

use testkit::history::Policy::{Atomic, Reconcile, Refuse, Rerun};
use testkit::history::{ClientAnswer, History, Policy, Sent};

const ALL: &[Policy] = &[Refuse, Rerun, Reconcile, Atomic];
/// The policies that promise at most one effect.
const AT_MOST_ONE: &[Policy] = &[Refuse, Reconcile, Atomic];

const KEY: &str = "key";
const CHARGE: &str = "a charge of 10 euros";
const OTHER: &str = "a charge of 20 euros";

/// The histories that break a rule: the rule, the policies, a name, and the steps of [`play`].
const BAD: &[(u8, &[Policy], &str, &str)] = &[
    (1, AT_MOST_ONE, "a second effect", "charged effect effect"),
    (1, AT_MOST_ONE, "a second effect after a crash", "nothing effect crash charged effect"),
    (1, AT_MOST_ONE, "two effects that no answer shows", "nothing outcome-unknown effect effect"),
    (1, ALL, "an effect without a request", "effect"),
    (2, ALL, "a success without its effect", "charged charged"),
    (2, ALL, "an unsaved success without its effect", "charged? crash"),
    (3, ALL, "another outcome", "charged again effect"),
    (3, ALL, "another outcome, of another kind", "charged declined effect"),
    (3, ALL, "another outcome, which is unsaved", "charged again? effect"),
    (3, ALL, "another outcome after a crash", "charged crash again effect"),
    (3, ALL, "two outcomes for requests that were sent at once", "a> b> b=charged a=again effect"),
    (3, ALL, "another outcome than the unsaved one, before a crash", "charged? again effect"),
    (3, &[Rerun], "another outcome than one that was recorded late", "charged? charged crash again effect effect"),
    (4, ALL, "an outcome that a crash makes unknown", "charged crash outcome-unknown effect"),
    (4, ALL, "an outcome that a crash makes unstorable", "charged crash not-replayable effect"),
    (4, ALL, "an owner that a crash makes another request", "charged crash key-reused effect"),
    (4, ALL, "an owner that a crash makes another client", "charged crash credentials-changed effect"),
    (4, ALL, "an outcome that is forgotten without a crash", "charged outcome-unknown effect"),
    (4, ALL, "an unsaved outcome that is forgotten without a crash", "charged? outcome-unknown effect"),
    (5, ALL, "an outcome for another request", "charged other=charged effect"),
    (5, ALL, "an outcome for another request, before the owner has one", "a> other=declined a=nothing"),
];

/// The histories that break no rule.
const GOOD: &[(&[Policy], &str, &str)] = &[
    (&[Rerun], "a second effect after a crash", "nothing effect crash charged charged effect"),
    (ALL, "one effect without an answer", "a> nothing crash effect"),
    (ALL, "no effect where the outcome says so", "declined declined"),
    (ALL, "an effect that is recorded before the answer", "effect charged"),
    (&[Rerun], "another outcome than the unsaved one, after a crash", "charged? crash again again effect effect"),
    (ALL, "duplicates with one outcome", "a> b> c> c=in-flight b=charged a=charged charged effect"),
    (ALL, "no answer to a retry", "charged nothing crash nothing charged effect"),
    (ALL, "come again", "charged in-flight store-unavailable store-full crash overloaded shutting-down charged effect"),
    (ALL, "an unsaved outcome that a crash takes", "charged? charged? crash outcome-unknown effect"),
    // The client has the answer from before the crash. A laboratory may record it after the crash.
    (&[Refuse], "an unsaved outcome of the life before", "a> crash a=charged? outcome-unknown effect"),
    (ALL, "a refusal of a request from before the outcome", "a> b> a=charged b=outcome-unknown effect"),
    (ALL, "an outcome after refusals", "outcome-unknown in-flight charged effect"),
    (ALL, "a refusal of another request", "charged other=key-reused charged effect"),
];

/// Takes the steps into a history:
///
/// - `effect` and `crash` record an effect and a crash.
/// - `a>` sends a request, and `a=ANSWER` answers it. `other=ANSWER` sends and answers another request with the key.
/// - `ANSWER` alone sends a request and answers it.
fn play(history: &History, steps: &str) {
    let mut sent: BTreeMap<&str, Sent> = BTreeMap::new();
    for step in steps.split(' ') {
        match step.split_once('=') {
            None if step == "effect" => history.effect(KEY),
            None if step == "crash" => history.crashed(),
            Some(("other", told)) => history.answered(history.sent(KEY, OTHER), answer(told)),
            Some((name, told)) => history.answered(sent.remove(name).expect("it was sent"), answer(told)),
            None => match step.strip_suffix('>') {
                Some(name) => drop(sent.insert(name, history.sent(KEY, CHARGE))),
                None => history.answered(history.sent(KEY, CHARGE), answer(step)),
            },
        }
    }
}

/// Returns an outcome by its text, with `?` if it is unsaved; or no answer; or else a refusal.
fn answer(text: &str) -> ClientAnswer {
    match text {
        "charged" | "again" => ClientAnswer::outcome(text.to_owned()),
        "charged?" | "again?" => ClientAnswer::outcome(text.trim_end_matches('?').to_owned()).unsaved(),
        "declined" => ClientAnswer::Outcome { bytes: text.to_owned().into(), success: false, recorded: true },
        "nothing" => ClientAnswer::Nothing,
        refusal => ClientAnswer::refused(refusal),
    }
}

fn played(policy: Policy, steps: &str) -> History {
    let history = History::new(policy);
    play(&history, steps);
    history
}

/// Returns whether there is exactly one violation, and it is of this rule.
fn breaks(rule: u8, violations: &[String]) -> bool {
    violations.len() == 1 && violations[0].starts_with(&format!("{KEY}: rule {rule}: "))
}

#[test]
fn each_kind_of_bad_history_is_found_by_its_rule_alone() {
    for &(rule, policies, what, steps) in BAD {
        for &policy in policies {
            let violations = played(policy, steps).violations();
            assert!(breaks(rule, &violations), "{policy:?}, {what}: {violations:?}");
        }
    }
}

#[test]
fn good_histories_pass() {
    for &(policies, what, steps) in GOOD {
        for &policy in policies {
            assert_eq!(played(policy, steps).violations(), [""; 0], "{policy:?}, {what}");
        }
    }
}
