//! What a disk does to a file.

use std::fmt;

use crate::harness::disk::Dice;
use crate::harness::disk::rebuild::Image;
use crate::harness::work::notes::STORE;

const PAGE: usize = 4096;
/// How often another place is tried where the damage would change nothing.
const TRIES: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flip,
    Zero,
    Truncate,
    Exchange,
}

const KINDS: [Kind; 4] = [Kind::Flip, Kind::Zero, Kind::Truncate, Kind::Exchange];

/// What is damaged, and how.
#[derive(Debug)]
pub(crate) struct Place {
    file: String,
    kind: Kind,
    at: Vec<usize>,
    length: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, kind, at, length } = self;
        write!(f, "{kind:?} in {file} at {at:?} of {length}")
    }
}

impl Place {
    /// Damages one place of a copy of `image`. The first numbers are for each kind of damage in each file; the others
    /// are random, most of them in the log.
    pub(crate) fn damage(image: &Image, number: usize, dice: &mut Dice) -> (Self, Image) {
        let files: Vec<&String> =
            image.iter().filter(|(_, content)| is_file(content.as_ref())).map(|(path, _)| path).collect();
        for attempt in 0..TRIES {
            let (file, kind) = if number < files.len() * KINDS.len() && attempt == 0 {
                (files[number / KINDS.len()].clone(), KINDS[number % KINDS.len()])
            } else if dice.percent(70) {
                (format!("{STORE}/db"), dice.pick(&KINDS))
            } else {
                (files[dice.below(files.len())].clone(), dice.pick(&KINDS))
            };
            let sound = image[&file].as_ref().expect("a file");
            let (at, bytes) = damaged(sound, kind, dice);
            if bytes != *sound {
                let mut image = image.clone();
                let place = Self { kind, at, length: sound.len(), file: file.clone() };
                image.insert(file, Some(bytes));
                return (place, image);
            }
        }
        panic!("nothing can be damaged")
    }
}

fn is_file(content: Option<&Vec<u8>>) -> bool {
    content.is_some_and(|bytes| !bytes.is_empty())
}

/// Returns where the damage is, and the bytes.
fn damaged(sound: &[u8], kind: Kind, dice: &mut Dice) -> (Vec<usize>, Vec<u8>) {
    let mut bytes = sound.to_vec();
    // What comes after is space that was never written to.
    let written = sound.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let page = PAGE.min(written.div_ceil(2));
    let pages = written.div_ceil(page);
    let place_of = |page_number: usize| page_number * page..((page_number + 1) * page).min(sound.len());
    match kind {
        Kind::Flip => {
            let at = dice.below(written);
            bytes[at] ^= 1 << dice.below(8);
            (vec![at], bytes)
        }
        Kind::Zero => {
            let place = place_of(dice.below(pages));
            bytes[place.clone()].fill(0);
            (vec![place.start], bytes)
        }
        Kind::Truncate => {
            let length = dice.below(written);
            bytes.truncate(length);
            (vec![length], bytes)
        }
        Kind::Exchange => {
            let (one, other) = (place_of(dice.below(pages)), place_of(dice.below(pages)));
            let length = one.len().min(other.len());
            for offset in 0..length {
                (bytes[one.start + offset], bytes[other.start + offset]) =
                    (sound[other.start + offset], sound[one.start + offset]);
            }
            (vec![one.start, other.start], bytes)
        }
    }
}
