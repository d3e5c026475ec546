//! BLAKE3 over bytes that come in parts. `raw` has the form in which digests, and other arrays of bytes, are stored.

use std::fmt;
use std::sync::LazyLock;

use arrayvec::ArrayVec;
use blake3::Hasher;

pub(crate) mod raw;

/// Up to this number of bytes, parts are gathered before they are hashed: BLAKE3 hashes several blocks at a time if
/// they come as a whole, and copying is quicker than hashing. Beyond it, gathering gains nothing.
const GATHERED: usize = 64 * 1024;
/// The number of bytes that the parts of most requests take, without a long body.
const USUAL: usize = 256;
/// The most bytes of a [`Prefix`]: a length of 64 bits, seven in each byte.
const MAX_PREFIX: usize = 10;

/// The purpose of a digest: the key of BLAKE3's keyed hash, so that no two purposes have a digest in common. The key is
/// what BLAKE3 derives of a context and no bytes: [`purpose`]. A keyed hash in one step costs half of what one in
/// BLAKE3's mode for deriving keys does, which has to be done in three.
pub(crate) type DigestKey = LazyLock<[u8; 32]>;

/// Returns the key of the purpose with this context.
pub(crate) fn purpose(context: &str) -> [u8; 32] {
    blake3::derive_key(context, &[])
}

/// Returns the digest of all parts in a row.
pub(crate) fn digest_of(purpose: &'static DigestKey, parts: &[&[u8]]) -> [u8; 32] {
    let mut digester = Digester::new(purpose);
    for part in parts {
        digester.update(part);
    }
    digester.finish()
}

/// The length of what follows, in as few bytes as it needs: seven bits in each, the lowest first, and the eighth is set
/// in all but the last. No prefix begins another one, so parts that follow their prefixes never run together, however
/// long they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prefix {
    bytes: [u8; MAX_PREFIX],
    length: usize,
}

impl Prefix {
    /// Returns the prefix of a part: its length.
    #[inline]
    pub(crate) fn of(part: &[u8]) -> Self {
        Self::of_number(part.len())
    }

    /// Returns a number in this form.
    #[inline]
    pub(crate) fn of_number(number: usize) -> Self {
        let mut prefix = Self { bytes: [number as u8; MAX_PREFIX], length: 1 };
        let mut left = number;
        while left >= 0x80 {
            prefix.bytes[prefix.length - 1] = left as u8 | 0x80;
            left >>= 7;
            prefix.bytes[prefix.length] = left as u8;
            prefix.length += 1;
        }
        prefix
    }

    /// Returns the number with which `bytes` begin, and how many bytes it takes, or `None` if they begin with none.
    #[cfg(feature = "server")]
    pub(crate) fn read(bytes: &[u8]) -> Option<(usize, usize)> {
        let mut number = 0;
        for (place, byte) in bytes.iter().enumerate().take(MAX_PREFIX) {
            let bits = usize::from(byte & 0x7f);
            // No bit may be beyond the last.
            let shifted = bits.checked_shl(7 * place as u32).filter(|shifted| shifted >> (7 * place) == bits)?;
            number |= shifted;
            if *byte < 0x80 {
                return Some((number, place + 1));
            }
        }
        None
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Hashes bytes that come part by part; the digest is that of all parts in a row.
#[derive(Clone)]
pub(crate) struct Digester {
    purpose: &'static [u8; 32],
    /// The first bytes, which are all that most requests have.
    room: ArrayVec<u8, USUAL>,
    /// All bytes, once they don't fit into `room`; empty once there is a hasher.
    gathered: Vec<u8>,
    /// `Some` once there are too many bytes to gather them.
    hasher: Option<Box<Hasher>>,
}

impl Digester {
    #[inline]
    pub(crate) fn new(purpose: &'static DigestKey) -> Self {
        Self { purpose, room: ArrayVec::new(), gathered: Vec::new(), hasher: None }
    }

    /// Adds a part with its length before it, so that no two rows of such parts are the same bytes.
    #[inline]
    pub(crate) fn part(&mut self, part: &[u8]) -> &mut Self {
        // Nearly all parts are short, and there is room for them: half the time of the way below.
        if part.len() < 0x80 && part.len() < self.room.remaining_capacity() && self.is_short() {
            self.room.push(part.len() as u8);
            let _fits = self.room.try_extend_from_slice(part);
            return self;
        }
        self.update(Prefix::of(part).as_bytes()).update(part)
    }

    #[inline]
    pub(crate) fn update(&mut self, part: &[u8]) -> &mut Self {
        if self.is_short() && self.room.try_extend_from_slice(part).is_ok() {
            return self;
        }
        self.update_beyond(part)
    }

    /// Gathers the part with those before it, or passes all of them to the hasher.
    fn update_beyond(&mut self, part: &[u8]) -> &mut Self {
        let gathers = self.hasher.is_none() && self.room.len().max(self.gathered.len()) + part.len() <= GATHERED;
        if self.is_short() {
            self.gathered.reserve(self.room.len() + if gathers { part.len().max(USUAL) } else { 0 });
            self.gathered.extend_from_slice(&self.room);
        }
        if gathers {
            self.gathered.extend_from_slice(part);
            return self;
        }
        let gathered = std::mem::take(&mut self.gathered);
        let begin = || Box::new(Hasher::new_keyed(self.purpose));
        self.hasher.get_or_insert_with(begin).update(&gathered).update(part);
        self
    }

    /// Returns whether all bytes so far are in `room`.
    fn is_short(&self) -> bool {
        self.gathered.is_empty() && self.hasher.is_none()
    }

    /// Returns whether no byte came.
    pub(crate) fn is_empty(&self) -> bool {
        self.room.is_empty() && self.is_short()
    }

    pub(crate) fn finish(&self) -> [u8; 32] {
        match &self.hasher {
            Some(hasher) => hasher.finalize().into(),
            None if self.is_short() => blake3::keyed_hash(self.purpose, &self.room).into(),
            None => blake3::keyed_hash(self.purpose, &self.gathered).into(),
        }
    }
}

impl fmt::Debug for Digester {
    /// Leaves out the bytes, which may be a request's body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digester").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use arbtest::arbitrary::{Result, Unstructured};
    use arbtest::arbtest;

    use super::*;

    const CONTEXT: &str = "tower-idempotency 2026 test";
    static TEST: DigestKey = LazyLock::new(|| purpose(CONTEXT));

    fn whole(all: &[u8]) -> [u8; 32] {
        *Hasher::new_keyed(&blake3::derive_key(CONTEXT, &[])).update(all).finalize().as_bytes()
    }

    /// The parts that were put in a row, each behind its prefix.
    fn read(mut row: &[u8]) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        while !row.is_empty() {
            let (mut length, mut shift) = (0, 0);
            loop {
                let (byte, rest) = row.split_first().unwrap();
                length |= usize::from(byte & 0x7f) << shift;
                (row, shift) = (rest, shift + 7);
                if *byte < 0x80 {
                    break;
                }
            }
            let (part, rest) = row.split_at(length);
            parts.push(part.to_vec());
            row = rest;
        }
        parts
    }

    /// A few parts, each filled with its number.
    fn any_parts(source: &mut Unstructured<'_>, longest: usize) -> Result<Vec<Vec<u8>>> {
        let many = source.int_in_range(0..=5_u8)?;
        (0..many).map(|number| Ok(vec![number; source.int_in_range(0..=longest)?])).collect()
    }

    #[test]
    fn the_digest_is_that_of_all_parts_in_a_row() {
        arbtest(|source| {
            let parts = any_parts(source, 2 * GATHERED)?;
            let mut digester = Digester::new(&TEST);
            for part in &parts {
                digester.update(part);
            }
            assert_eq!(digester.finish(), whole(&parts.concat()));
            let slices: Vec<_> = parts.iter().map(Vec::as_slice).collect();
            assert_eq!(digest_of(&TEST, &slices), whole(&parts.concat()));
            Ok(())
        });
    }

    #[test]
    fn parts_with_their_prefixes_never_run_together() {
        // Injective: what was put in a row can be read from it again, whatever the lengths.
        arbtest(|source| {
            let parts = any_parts(source, 40_000)?;
            let row: Vec<u8> = parts.iter().flat_map(|part| [Prefix::of(part).as_bytes(), part].concat()).collect();
            assert_eq!(read(&row), parts);
            Ok(())
        });
    }

    #[test]
    fn a_prefix_is_as_short_as_it_can_be() {
        let prefixes: [(usize, &[u8]); 4] = [(0, &[0]), (127, &[127]), (128, &[0x80, 1]), (300, &[0xac, 2])];
        for (length, bytes) in prefixes {
            assert_eq!(Prefix::of(&vec![0; length]).as_bytes(), bytes, "{length}");
        }
    }
}
