use std::time::Duration;

use crate::finding::{Checked, Event, Finding, Outcome, Report, Severity};

fn checked(name: &'static str, outcome: Outcome, findings: Vec<Finding>) -> Checked {
    let endpoint = "POST /a".to_owned();
    let (timeline, took) = (Vec::new(), Duration::from_millis(1_500));
    Checked { name, question: "Is it?", endpoint, outcome, follows_from: None, findings, timeline, took }
}

fn found(severity: Severity, what: &str) -> Finding {
    Finding { severity, what: what.to_owned(), rule: "section <1>".to_owned(), is_counted: false, part: None }
}

/// A check of each kind: with a timeline, and with what follows from it at the same endpoint and at another one.
fn report() -> Report {
    let mut cause = checked("cause", Outcome::Broken, vec![found(Severity::Dangerous, "2 <effects>")]);
    let (label, sent, received) = ("again".to_owned(), "curl 'a'".to_owned(), "201 <1>".to_owned());
    let (began, ended) = (Duration::from_millis(20), Duration::from_millis(30));
    cause.timeline.push(Event { began, ended, label, sent, received });
    let follows = |finding| Checked { follows_from: Some("cause"), ..checked("other", Outcome::Broken, vec![finding]) };
    let elsewhere = Checked { endpoint: "POST /b".to_owned(), ..follows(found(Severity::Wrong, "elsewhere")) };
    let notes = vec![found(Severity::Note, "one"), found(Severity::Note, "two")];
    let checks = vec![
        checked("plain", Outcome::Kept, Vec::new()),
        cause,
        checked("noted", Outcome::Kept, vec![found(Severity::Note, "one")]),
        checked("twice-noted", Outcome::Kept, notes),
        follows(found(Severity::Wrong, "lost")),
        elsewhere,
        checked("skipped", Outcome::Skipped("no <plan>".to_owned()), Vec::new()),
        checked("failed", Outcome::Failed("no \"answer\"".to_owned()), Vec::new()),
    ];
    Report { origin: "http://a".to_owned(), profiles: vec!["draft", "acp"], checks, requests: 9 }
}

const SUM: &str = "http://a, profile draft, acp: 3 kept, 1 broken and 2 that follow from it, 1 could not be checked, \
                   1 skipped; 3 notes; 9 requests";

#[test]
fn each_check_has_a_line() {
    let lines: Vec<_> = report().checks.iter().map(Checked::line).collect();
    let expected = [
        "plain                        ok",
        "cause                        BROKEN",
        "noted                        ok, 1 note",
        "twice-noted                  ok, 2 notes",
        "other                        BROKEN, which follows from cause",
        "other                        BROKEN, which follows from cause",
        "skipped                      skipped: no <plan>",
        "failed                       could not check: no \"answer\"",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_text_has_all_findings_what_was_sent_and_what_follows_at_the_same_endpoint() {
    let note = |name: &str, notes: &str| format!("\n---- {name} (POST /a) ----\nIs it?\n{notes}");
    let expected = [
        note("cause", "  DANGEROUS: 2 <effects>\n    section <1>\n"),
        "    0.020 s  again\n      curl 'a'\n      201 <1>\n".to_owned(),
        "  what follows from it:\n    other: wrong: lost\n".to_owned(),
        note("noted", "  note: one\n    section <1>\n"),
        note("twice-noted", "  note: one\n    section <1>\n  note: two\n    section <1>\n"),
        format!("\n{SUM}"),
    ];
    assert_eq!(report().to_text(), expected.concat());
}

#[test]
fn where_nothing_follows_the_sum_does_not_say_so() {
    let checks = vec![checked("cause", Outcome::Broken, Vec::new())];
    let text = Report { checks, ..report() }.to_text();
    let sum = "0 kept, 1 broken, 0 could not be checked, 0 skipped; 0 notes; 9 requests";
    assert_eq!(text, format!("\nhttp://a, profile draft, acp: {sum}"));
}

#[test]
fn junit_has_a_case_of_each_check_and_what_follows_is_skipped() {
    let case = |name: &str, path: &str, inner: &str| {
        format!("  <testcase classname=\"POST /{path}\" name=\"{name}\" time=\"1.500\">{inner}</testcase>\n")
    };
    let follows =
        |what: &str| format!("<skipped message=\"it follows from cause\"/><system-out>wrong: {what}</system-out>");
    let failure = "<failure message=\"Is it?\">DANGEROUS: 2 &lt;effects&gt;\nfollows: other: wrong: lost</failure>";
    let expected = [
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned(),
        "<testsuite name=\"idem check http://a\" tests=\"8\" failures=\"1\" errors=\"1\" skipped=\"3\">\n".to_owned(),
        case("plain", "a", ""),
        case("cause", "a", failure),
        case("noted", "a", "<system-out>note: one</system-out>"),
        case("twice-noted", "a", "<system-out>note: one\nnote: two</system-out>"),
        case("other", "a", &follows("lost")),
        case("other", "b", &follows("elsewhere")),
        case("skipped", "a", "<skipped message=\"no &lt;plan&gt;\"/>"),
        case("failed", "a", "<error message=\"no &quot;answer&quot;\"/>"),
        "</testsuite>\n".to_owned(),
    ];
    assert_eq!(report().to_junit(), expected.concat());
}

#[test]
fn html_has_a_row_and_a_section_of_each_check_with_what_follows_below_its_cause() {
    let row = |number: usize, name: &str, path: &str, class: &str, said: &str| {
        format!(
            "<tr><td><a href=\"#c{number}\">{name}</a><br><small>POST /{path}</small></td><td>Is it?</td>\
             <td class=\"{class}\">{said}</td></tr>\n"
        )
    };
    let section = |number: usize, name: &str, inner: &str| {
        format!("<section id=\"c{number}\"><h2>{name}</h2><p>Is it?</p>\n{inner}</section>\n")
    };
    let finding = |class: &str, severity: &str, what: &str| {
        format!("<p><span class=\"{class}\">{severity}</span>: {what}<br><small>section &lt;1&gt;</small></p>\n")
    };
    let timeline = "<details><summary>what was sent, and what came back</summary><table>\n\
                    <tr><td>0.020 s</td><td>again<pre>curl &#39;a&#39;</pre><pre>201 &lt;1&gt;</pre></td></tr>\n\
                    </table></details>\n";
    let (one, two) = (finding("note", "note", "one"), finding("note", "note", "two"));
    let follows = "broken, which follows from cause";
    let expected = [
        "<h1>idem check</h1>\n".to_owned(),
        format!("<p>{SUM}</p>\n<table><tr><th>check</th><th>question</th><th>result</th></tr>\n"),
        row(0, "plain", "a", "kept", "kept"),
        row(1, "cause", "a", "broken", "broken"),
        row(2, "noted", "a", "kept", "kept, 1 note"),
        row(3, "twice-noted", "a", "kept", "kept, 2 notes"),
        row(4, "other", "a", "follows", follows),
        row(5, "other", "b", "follows", follows),
        row(6, "skipped", "a", "skipped", "skipped: no &lt;plan&gt;"),
        row(7, "failed", "a", "failed", "could not check: no &quot;answer&quot;"),
        "</table>\n".to_owned(),
        section(0, "plain", ""),
        section(1, "cause", &[&finding("dangerous", "DANGEROUS", "2 &lt;effects&gt;"), timeline].concat()),
        section(4, "other", &finding("wrong", "wrong", "lost")),
        section(2, "noted", &one),
        section(3, "twice-noted", &[one.as_str(), &two].concat()),
        section(6, "skipped", ""),
        section(7, "failed", ""),
        "</html>\n".to_owned(),
    ];
    let html = report().to_html();
    let (head, body) = html.split_at(html.find("<h1>").unwrap());
    assert_eq!(body, expected.concat());
    assert!(head.starts_with("<!doctype html>\n") && head.contains("<title>idem check http://a</title>"), "{head}");
}
