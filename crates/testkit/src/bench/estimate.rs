//! A median and how sure it is.

use std::f64::consts::LN_2;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The least number of pairs that a ratio is the median of.
const PAIRS: usize = 21;
/// Half of what an interval leaves out: 95 %.
const TAIL: f64 = 0.025;

/// The median of some values, and its 95 % interval.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    /// A figure that was counted, and not measured.
    pub fn exact(value: f64) -> Self {
        Self { median: value, low: value, high: value }
    }

    /// Of independent values. The interval is the one between two order statistics (the sign test turned round), so
    /// that nothing is taken for granted about how the values are spread.
    ///
    /// # Panics
    /// If there are no values.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        let median = f64::midpoint(values[last / 2], values[last.div_ceil(2)]);
        let left_out = left_out(values.len());
        Self { median, low: values[left_out], high: values[last - left_out] }
    }

    /// In three digits, with its interval where it has one.
    pub fn written(self) -> String {
        let Self { median, low, high } = self;
        if low == high { digits(median) } else { format!("{} [{}, {}]", digits(median), digits(low), digits(high)) }
    }
}

fn digits(value: f64) -> String {
    let before = if value == 0.0 { 1 } else { value.abs().log10().floor() as i32 + 1 };
    format!("{value:.*}", usize::try_from(3 - before).unwrap_or(0).min(4))
}

/// Returns how many of so many sorted values lie outside the interval, on each side.
fn left_out(count: usize) -> usize {
    // By its logarithm: the probability itself is 0 in an `f64`, for over a thousand values.
    let (mut below, mut logarithm) = (0.0, -(count as f64) * LN_2);
    for left_out in 0..count / 2 {
        below += logarithm.exp();
        if below > TAIL {
            return left_out.saturating_sub(1);
        }
        // The next binomial coefficient.
        logarithm += ((count - left_out) as f64 / (left_out + 1) as f64).ln();
    }
    0
}

/// Two things measured in turns.
#[derive(Debug)]
pub struct Pairs {
    pub ours: Vec<f64>,
    pub theirs: Vec<f64>,
}

impl Pairs {
    pub fn ours(&self) -> Estimate {
        Estimate::of(self.ours.clone())
    }

    pub fn theirs(&self) -> Estimate {
        Estimate::of(self.theirs.clone())
    }

    /// Ours in units of theirs.
    pub fn ratio(&self) -> Estimate {
        Estimate::of(self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs).collect())
    }

    /// Ours minus theirs.
    pub fn difference(&self) -> Estimate {
        Estimate::of(self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours - theirs).collect())
    }
}

/// Returns how many pairs are measured: `BENCH_PAIRS` for a quick look, whose figures are not kept.
pub fn pairs() -> usize {
    std::env::var("BENCH_PAIRS").map_or(PAIRS, |pairs| pairs.parse().expect("BENCH_PAIRS is a number"))
}

/// Returns whether enough is measured for the figures to be kept.
pub fn is_whole() -> bool {
    pairs() >= PAIRS
}

/// The value below which this share of the sorted values lies.
pub fn quantile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
