//! What the alien decides. All of it follows from the seed.

use std::time::Duration;

use serde::Serialize;
use testkit::Dice;

/// What becomes of one attempt to send a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Mischief {
    /// It arrives, and its answer too.
    None,
    /// It arrives later, behind others that were sent after it.
    Reordered,
    /// It is never sent.
    RequestSwallowed,
    /// It arrives, and its answer never does.
    AnswerSwallowed,
    /// Its connection ends in the middle of a byte stream, on the way there.
    RequestCut,
    /// The same, on the way back.
    AnswerCut,
    /// It arrives twice.
    Duplicated,
}

impl Mischief {
    /// All that is any.
    pub(crate) const ALL: [Self; 6] = [
        Self::Reordered,
        Self::RequestSwallowed,
        Self::AnswerSwallowed,
        Self::RequestCut,
        Self::AnswerCut,
        Self::Duplicated,
    ];

    /// Whether a request or an answer does not arrive whole.
    pub(crate) fn swallows(self) -> bool {
        matches!(self, Self::RequestSwallowed | Self::AnswerSwallowed | Self::RequestCut | Self::AnswerCut)
    }

    /// What it is, for people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::None => "lets it pass",
            Self::Reordered => "holds it back, behind later ones",
            Self::RequestSwallowed => "swallows the request",
            Self::AnswerSwallowed => "swallows the answer",
            Self::RequestCut => "cuts the request",
            Self::AnswerCut => "cuts the answer",
            Self::Duplicated => "sends it twice",
        }
    }
}

/// A decision about an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) mischief: Mischief,
    /// How long the request is held.
    pub(crate) delay: Duration,
    /// After how many bytes a connection is cut.
    pub(crate) bytes: usize,
}

impl Fate {
    /// Nothing happens.
    pub(crate) const PASS: Self = Self { mischief: Mischief::None, delay: Duration::ZERO, bytes: usize::MAX };

    /// The decision about attempt `attempt` of order `order` of a customer. `evil` of a hundred attempts meet mischief.
    pub(crate) fn of(seed: u64, customer: u32, order: u32, attempt: u32, evil: u64) -> Self {
        let mut dice = Dice::of(&[seed, customer.into(), order.into(), attempt.into()]);
        let mischief = if dice.percent(evil) { dice.pick(&Mischief::ALL) } else { Mischief::None };
        let most = if mischief == Mischief::Reordered { 700 } else { 15 };
        let delay = Duration::from_millis(dice.below(most) as u64);
        let bytes = match mischief {
            Mischief::RequestCut => dice.below(230),
            Mischief::AnswerCut => dice.below(260),
            _ => usize::MAX,
        };
        Self { mischief, delay, bytes }
    }
}

/// What the alien does to a server's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Blow {
    /// It is killed, and started again.
    Kill,
    /// It is stopped for so many milliseconds.
    Pause(u64),
}

/// When each server is struck, and how: the first one at `number`, counted from 0.
pub(crate) fn blow(seed: u64, number: u32, servers: usize) -> (Duration, usize, Blow) {
    let mut dice = Dice::of(&[seed, u64::MAX, number.into()]);
    let after = Duration::from_millis(400 + dice.below(900) as u64);
    let server = dice.below(servers);
    let blow = if dice.percent(60) { Blow::Kill } else { Blow::Pause(100 + dice.below(900) as u64) };
    (after, server, blow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_the_same_seed_the_alien_decides_the_same() {
        let all = |seed| (0..500).map(move |attempt| Fate::of(seed, 3, 17, attempt, 60)).collect::<Vec<_>>();
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
        for mischief in Mischief::ALL {
            assert!(all(7).iter().any(|fate| fate.mischief == mischief), "{mischief:?}");
        }
        assert_eq!(blow(7, 3, 3), blow(7, 3, 3));
    }
}
