//! The damage that a disk does to a file.

use std::collections::BTreeMap;
use std::fmt;

use laboratories::disk::content::Content;
use laboratories::disk::rebuild::Image;
use testkit::Dice;

const PAGE: usize = 4096;
/// The number of other places to try where the damage would change nothing.
const TRIES: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flip,
    Zero,
    Truncate,
    Exchange,
}

/// The number of kinds.
pub(crate) const KINDS: usize = EACH.len();
const EACH: [Kind; 4] = [Kind::Flip, Kind::Zero, Kind::Truncate, Kind::Exchange];

/// One place of damage: the file, the kind and the position.
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
    /// Returns the kind of the file.
    pub(crate) fn kind(&self) -> String {
        kind(&self.file)
    }

    /// Damages one place of `file` in a copy of `image`, among its last `most` bytes. Each kind of damage takes its
    /// turn.
    pub(crate) fn damage(image: &Image, file: &str, most: usize, number: usize, dice: &mut Dice) -> (Self, Image) {
        let sound = image[file].as_ref().expect("a file");
        // The rest is space that was never written to.
        let written = sound.written();
        let (before, end) = written.split_at(written.len().saturating_sub(most));
        for attempt in 0..TRIES {
            let kind = if attempt == 0 { EACH[number % KINDS] } else { dice.pick(&EACH) };
            let (mut at, bytes) = damaged(end, kind, dice);
            if bytes != end {
                at.iter_mut().for_each(|at| *at += before.len());
                let mut damaged = Content::from(&*[before, &bytes].concat());
                if kind != Kind::Truncate {
                    damaged.resize(sound.len());
                }
                let mut image = image.clone();
                image.insert(file.to_owned(), Some(damaged));
                return (Self { kind, at, length: sound.len(), file: file.to_owned() }, image);
            }
        }
        panic!("nothing can be damaged in {file}")
    }
}

/// Returns the files that have something to damage, of each kind.
pub(crate) fn files(image: &Image) -> BTreeMap<String, Vec<&str>> {
    let mut files = BTreeMap::<_, Vec<_>>::new();
    for (path, content) in image {
        if content.as_ref().is_some_and(|content| !content.written().is_empty()) {
            files.entry(kind(path)).or_default().push(path.as_str());
        }
    }
    files
}

/// Returns the name of a file without its number. A file that has only a number is one of its directory.
fn kind(path: &str) -> String {
    let mut names = path.rsplit('/');
    let (name, above) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    let is_digit = |letter: char| letter.is_ascii_digit();
    match name.trim_matches(is_digit) {
        "" => format!("{above}/N"),
        ".jnl" => "N.jnl".to_owned(),
        // The number is hexadecimal.
        snapshot if snapshot.starts_with("snap.") => "snap.N".to_owned(),
        rest if rest.len() < name.len() => format!("{rest}N"),
        name => name.to_owned(),
    }
}

/// Returns the places of the damage and the damaged bytes.
fn damaged(sound: &[u8], kind: Kind, dice: &mut Dice) -> (Vec<usize>, Vec<u8>) {
    let (mut bytes, written) = (sound.to_vec(), sound.len());
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
