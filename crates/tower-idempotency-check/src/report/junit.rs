//! A report in the form of `JUnit`, which CI systems read.

use std::fmt::Write as _;

use crate::finding::{Checked, Finding, Outcome, Report};

impl Report {
    /// All of it, as the XML of `JUnit`.
    #[must_use]
    pub fn to_junit(&self) -> String {
        let count = |is: fn(&Outcome) -> bool| self.checks.iter().filter(|check| is(&check.outcome)).count();
        let (failures, errors) =
            (count(|outcome| *outcome == Outcome::Broken), count(|outcome| matches!(outcome, Outcome::Failed(_))));
        let follow = self.checks.iter().filter(|check| check.follows_from.is_some()).count();
        let (tests, skipped) = (self.checks.len(), count(|outcome| matches!(outcome, Outcome::Skipped(_))));
        let (failures, skipped) = (failures - follow, skipped + follow);
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"idem check {}\" tests=\"{tests}\" \
             failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\">\n",
            escaped(&self.origin)
        );
        for check in &self.checks {
            let _ = write!(
                xml,
                "  <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">",
                escaped(&check.endpoint),
                check.name,
                check.took.as_secs_f64()
            );
            let said = |check: &Checked| {
                let of = |finding: &Finding| format!("{}: {}", finding.severity.word(), finding.what);
                check.findings.iter().map(of).collect::<Vec<_>>()
            };
            let follow = self.consequences(check).into_iter();
            let follow = follow.flat_map(|it| said(it).into_iter().map(|what| format!("follows: {}: {what}", it.name)));
            let said: Vec<_> = said(check).into_iter().chain(follow).collect();
            let said = escaped(&said.join("\n"));
            let _ = match &check.outcome {
                Outcome::Broken if check.follows_from.is_some() => {
                    let cause = check.follows_from.unwrap_or_default();
                    write!(xml, "<skipped message=\"it follows from {cause}\"/><system-out>{said}</system-out>")
                }
                Outcome::Kept if said.is_empty() => Ok(()),
                Outcome::Kept => write!(xml, "<system-out>{said}</system-out>"),
                Outcome::Broken => write!(xml, "<failure message=\"{}\">{said}</failure>", escaped(check.question)),
                Outcome::Skipped(why) => write!(xml, "<skipped message=\"{}\"/>", escaped(why)),
                Outcome::Failed(why) => write!(xml, "<error message=\"{}\"/>", escaped(why)),
            };
            xml.push_str("</testcase>\n");
        }
        xml.push_str("</testsuite>\n");
        xml
    }
}

/// A text for XML and HTML. Characters that XML does not permit become blanks.
pub(super) fn escaped(text: &str) -> String {
    let is_permitted = |character: char| !character.is_control() || "\t\n\r".contains(character);
    let text: String = text.chars().map(|it| if is_permitted(it) { it } else { ' ' }).collect();
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn what_a_server_says_is_no_markup() {
        assert_eq!(escaped("<a href='x'>&\"\u{0}</a>\n"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot; &lt;/a&gt;\n");
    }
}
