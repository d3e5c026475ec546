//! A report as one HTML file, which needs no network and no script.

use std::fmt::Write as _;

use super::junit::escaped;
use crate::finding::{Checked, Report};

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --bad: #c0392b; --warn: #b9770e; --good: #1e8449 }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
.broken, .dangerous { color: var(--bad); font-weight: 600 } .wrong, .failed { color: var(--warn); font-weight: 600 }
.kept { color: var(--good) } .skipped, .follows, .note, small { opacity: .75 }
pre { overflow-x: auto; background: #8881; padding: .6rem; border-radius: .3rem; margin: .2rem 0 }
section { margin: 2rem 0 } details { margin: .5rem 0 }
";

impl Report {
    /// All of it, as an HTML page.
    #[must_use]
    pub fn to_html(&self) -> String {
        let origin = escaped(&self.origin);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>idem check {origin}</title>\n\
             <style>{STYLE}</style>\n<h1>idem check</h1>\n<p>{}</p>\n\
             <table><tr><th>check</th><th>question</th><th>result</th></tr>\n",
            escaped(&self.sum())
        );
        for (number, check) in self.checks.iter().enumerate() {
            let ([class, word, _], why) = check.ended();
            let _ = writeln!(
                page,
                "<tr><td><a href=\"#c{number}\">{}</a><br><small>{}</small></td><td>{}</td><td class=\"{class}\">{}</td></tr>",
                check.name,
                escaped(&check.endpoint),
                escaped(check.question),
                escaped(&format!("{word}{why}"))
            );
        }
        page.push_str("</table>\n");
        for (number, check) in self.checks.iter().enumerate() {
            if check.follows_from.is_none() {
                section(&mut page, number, check);
                // What follows from it is below it.
                for (number, other) in self.checks.iter().enumerate() {
                    if other.follows_from == Some(check.name) && other.endpoint == check.endpoint {
                        section(&mut page, number, other);
                    }
                }
            }
        }
        page.push_str("</html>\n");
        page
    }
}

fn section(page: &mut String, number: usize, check: &Checked) {
    let _ = writeln!(page, "<section id=\"c{number}\"><h2>{}</h2><p>{}</p>", check.name, escaped(check.question));
    for finding in &check.findings {
        let severity = finding.severity.word();
        let _ = writeln!(
            page,
            "<p><span class=\"{}\">{severity}</span>: {}<br><small>{}</small></p>",
            severity.to_lowercase(),
            escaped(&finding.what),
            escaped(&finding.rule)
        );
    }
    if !check.timeline.is_empty() {
        page.push_str("<details><summary>what was sent, and what came back</summary><table>\n");
        for event in &check.timeline {
            let _ = writeln!(
                page,
                "<tr><td>{:.3} s</td><td>{}<pre>{}</pre><pre>{}</pre></td></tr>",
                event.began.as_secs_f64(),
                escaped(&event.label),
                escaped(&event.sent),
                escaped(&event.received)
            );
        }
        page.push_str("</table></details>\n");
    }
    page.push_str("</section>\n");
}
