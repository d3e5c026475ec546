//! How a test of a store ends: one sentence for each result, which the guide has too.

use crate::failure::Ended;

/// A result. Of several, the last one in this order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    /// No fault was found, and it has a second copy.
    Good,
    /// No fault was found, and it has no second copy that is waited for.
    OneCopy,
    /// Something could not be tested.
    Unclear,
    /// The store could not be opened for a reason that says nothing about it.
    NotTested,
    /// A clock is wrong.
    Clock,
    /// It may lose what it has answered at the next crash, or even without one.
    NotDurable,
    /// Its schema or format is not this release's.
    OtherRelease,
    /// Its user lacks a right.
    Refused,
    /// It has lost records, or can't be read.
    Damaged,
    /// It has granted a key twice, or has lost a claim.
    ClaimIgnored,
}

impl Grade {
    /// All results, in their order.
    #[cfg(test)]
    const ALL: [Self; 10] = [
        Self::Good,
        Self::OneCopy,
        Self::Unclear,
        Self::NotTested,
        Self::Clock,
        Self::NotDurable,
        Self::OtherRelease,
        Self::Refused,
        Self::Damaged,
        Self::ClaimIgnored,
    ];

    /// Returns the name, for programs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::OneCopy => "one-copy",
            Self::Unclear => "unclear",
            Self::NotTested => "not-tested",
            Self::Clock => "clock",
            Self::NotDurable => "not-durable",
            Self::OtherRelease => "other-release",
            Self::Refused => "refused",
            Self::Damaged => "damaged",
            Self::ClaimIgnored => "claim-ignored",
        }
    }

    /// Returns how the command ends.
    pub(super) fn end(self) -> Ended {
        match self {
            Self::Good | Self::OneCopy | Self::Unclear => Ended::Well,
            Self::NotTested => Ended::Untested,
            _ => Ended::Badly,
        }
    }

    /// Returns the sentence that the guide promises for the result.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Good => {
                "No fault was found: this store keeps what it has answered through crashes, power cuts and a failover."
            }
            Self::OneCopy => {
                "No fault was found: this store keeps what it has answered through crashes and power cuts, but if its one \
                 copy is lost, retries run again."
            }
            Self::Unclear => {
                "No fault was found, but not all could be tested: look into each line that is marked as unclear before you \
                 rely on this store."
            }
            Self::NotTested => "This store was not tested: it is in use, is not there, or can't be reached.",
            Self::Clock => {
                "A clock is wrong: set it now, because records may be kept too long, and protection depends on the other clocks."
            }
            Self::NotDurable => {
                "This store can lose what it has answered, as each line says that is marked as BAD: retries then run a second \
                 time, so serve nothing with it whose effect counts."
            }
            Self::OtherRelease => {
                "This store is of another release: a service does not start with it until it is migrated, or the right release is used."
            }
            Self::Refused => {
                "This store refuses its user: a service does not start with it until it has the rights that are named above."
            }
            Self::Damaged => {
                "This store has lost records or can't be read: a service does not start with it until it is restored from a backup."
            }
            Self::ClaimIgnored => {
                "This store has granted one key twice or has lost a claim: each retry may be a second effect, so serve nothing with it."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Grade;

    const PAGE: &str = include_str!("../../../../docs/running/idem.md");

    #[test]
    fn the_guide_promises_these_sentences_and_no_others() {
        let (_, table) = PAGE.split_once("| result | exit code | the last line |").unwrap();
        let (table, _) = table.split_once("\n\n").unwrap();
        let rows: Vec<_> = table.lines().skip(2).collect();
        let expected =
            Grade::ALL.map(|grade| format!("| `{}` | {} | {} |", grade.name(), grade.end() as u8, grade.sentence()));
        assert_eq!(rows, expected);
        assert!(Grade::ALL.is_sorted());
    }
}
