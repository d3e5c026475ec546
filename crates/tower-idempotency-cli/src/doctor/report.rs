//! What a test has found, as it goes on.

use serde_json::{Value, json};

use super::claims::Seen;
use super::grade::Grade;
use crate::failure::{Ended, Failure};
use crate::screen::Screen;

/// The checks so far.
#[derive(Debug)]
pub(super) struct Report {
    screen: Screen,
    checks: Vec<Value>,
    grade: Grade,
}

impl Report {
    pub(super) fn new(screen: Screen) -> Self {
        Self { screen, checks: Vec::new(), grade: Grade::Good }
    }

    /// Something that is neither good nor bad.
    pub(super) fn note(&mut self, check: &'static str, found: impl Into<String>) -> Result<(), Failure> {
        self.add(check, "note", found.into())
    }

    /// Something that is as it has to be.
    pub(super) fn good(&mut self, check: &'static str, found: impl Into<String>) -> Result<(), Failure> {
        self.add(check, "good", found.into())
    }

    /// The same of several checks.
    pub(super) fn all_good(&mut self, seen: Seen) -> Result<(), Failure> {
        seen.into_iter().try_for_each(|(check, found)| self.good(check, found))
    }

    /// Something that could not be tested, or that people have to judge.
    pub(super) fn unclear(&mut self, check: &'static str, found: impl Into<String>) -> Result<(), Failure> {
        self.found(check, Grade::Unclear, found)
    }

    /// Something from which the grade follows.
    pub(super) fn found(&mut self, check: &'static str, grade: Grade, found: impl Into<String>) -> Result<(), Failure> {
        self.grade = self.grade.max(grade);
        let mark = match grade {
            Grade::Good => "good",
            Grade::OneCopy => "note",
            Grade::Unclear | Grade::NotTested => "unclear",
            _ => "BAD",
        };
        self.add(check, mark, found.into())
    }

    fn add(&mut self, check: &'static str, mark: &'static str, found: String) -> Result<(), Failure> {
        self.screen.line(format_args!("{mark:8} {check:13} {found}"))?;
        self.checks.push(json!({ "check": check, "result": mark.to_lowercase(), "found": found }));
        Ok(())
    }

    /// Ends with the sentence.
    pub(super) fn end(self) -> Result<Ended, Failure> {
        let Self { screen, checks, grade } = self;
        let sentence = grade.sentence();
        let value = json!({ "checks": checks, "result": grade.name(), "sentence": sentence });
        screen.answer(format_args!("\n{sentence}"), &value)?;
        Ok(grade.end())
    }
}
