//! The messages of which sled's log consists, in a segment after its header.

use std::ops::RangeInclusive;

/// The bytes of a segment's header, which come before its first message.
pub(super) const HEADER_BYTES: usize = 20;
/// The longest header of a message. If no more than this is left of a segment, there is no further message.
pub(super) const MESSAGE_HEADER_BYTES: usize = 32;
/// The kind of a message that says that the rest of the segment is empty, and the last kind there is. Overwritten bytes
/// are of kind 0.
pub(super) const CAP: u8 = 2;
/// The kind of a message before those of an atomic batch. It has the position of the batch's last byte in the log.
pub(super) const BATCH: u8 = 3;
const LAST_KIND: u8 = 11;
/// The kinds that change a page, and of these the ones that add to what the page has.
const CHANGES: RangeInclusive<u8> = 4..=LAST_KIND;
const LINKS: RangeInclusive<u8> = 10..=LAST_KIND;

/// Returns the place in the segment with this number at which no message follows the one before, or `None` if one
/// message follows another up to the segment's end.
pub(super) fn first_unreadable(segment: &[u8], segment_bytes: usize, number: u64) -> Option<usize> {
    each_message(segment, segment_bytes, number, |_, _| {}).err()
}

/// Calls `visit` with the place and the header of each message of the segment with this number, up to its end or the
/// first one that can't be read. Returns that place: `Ok` if the segment says that it ends there, or has no room for a
/// further message.
pub(super) fn each_message(
    segment: &[u8],
    segment_bytes: usize,
    number: u64,
    mut visit: impl FnMut(usize, Parts),
) -> Result<usize, usize> {
    let mut at = HEADER_BYTES;
    while at + MESSAGE_HEADER_BYTES <= segment_bytes {
        match segment.get(at..).and_then(|rest| message(rest, number)) {
            None => return Err(at),
            Some(parts) if parts.kind == CAP => break,
            Some(parts) => {
                visit(at, parts);
                at += parts.bytes();
            }
        }
    }
    Ok(at)
}

/// The contents of a message's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    checksum: u32,
    kind: u8,
    /// The number of the segment that the message is of.
    pub(super) segment: u64,
    page: u64,
    /// The lengths of the header and of the content, in bytes.
    header: usize,
    content: usize,
}

impl Parts {
    /// Returns the length of the message. A damaged header may say any length, so the sum does not overflow.
    pub(super) fn bytes(self) -> usize {
        self.header.saturating_add(self.content)
    }

    /// Returns the position in the log up to which a batch goes that begins with this message, of which `bytes` are.
    pub(super) fn batch(self, bytes: &[u8]) -> Option<i64> {
        let content = bytes.get(self.header..self.bytes()).filter(|_| self.kind == BATCH)?;
        Some(i64::from_le_bytes(*content.first_chunk()?))
    }

    /// Returns the page that the message changes, if it changes one, and whether it writes the page anew, as a whole.
    pub(super) fn change(self) -> Option<(u64, bool)> {
        CHANGES.contains(&self.kind).then_some((self.page, !LINKS.contains(&self.kind)))
    }

    /// Returns whether a message of this segment can begin in this way.
    pub(super) fn is_of(self, segment: u64) -> bool {
        self.segment == segment && (1..=LAST_KIND).contains(&self.kind)
    }
}

/// Returns the header of the message that `bytes` begin with; `None` if it is not a message of this segment.
///
/// A message is a checksum over everything that follows it, a byte for the kind, the length of the content, the number
/// of the segment, that of the page, and the content.
pub(super) fn message(bytes: &[u8], number: u64) -> Option<Parts> {
    let parts = parts(bytes).filter(|parts| parts.is_of(number))?;
    let content = bytes.get(parts.header..parts.bytes())?;
    let mut hasher = crc32fast::Hasher::new();
    // sled takes the content first, then the header without the checksum.
    hasher.update(content);
    hasher.update(bytes.get(4..parts.header)?);
    (parts.checksum == !hasher.finalize()).then_some(parts)
}

/// Reads the header of a message, whether its checksum fits or not.
pub(super) fn parts(bytes: &[u8]) -> Option<Parts> {
    let (checksum, rest) = bytes.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first()?;
    let (content, rest) = varint(rest)?;
    let (segment, rest) = varint(rest)?;
    let (page, rest) = varint(rest)?;
    let (header, content) = (bytes.len() - rest.len(), usize::try_from(content).ok()?);
    Some(Parts { checksum: u32::from_le_bytes(*checksum), kind: *kind, segment, page, header, content })
}

/// Reads a number as sled writes it: a small one in a byte, a larger one after a byte that says how many follow.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let byte = |index: usize| rest.get(index).copied().map(u64::from);
    let (number, more) = match u64::from(*first) {
        first @ 0..=240 => (first, 0),
        first @ 241..=248 => (240 + 256 * (first - 241) + byte(0)?, 1),
        249 => (2_288 + 256 * byte(0)? + byte(1)?, 2),
        // From 250 on: 3 to 8 bytes follow, little-endian.
        _ => {
            let count = usize::from(*first) - 247;
            let mut number = [0; 8];
            number.get_mut(..count)?.copy_from_slice(rest.get(..count)?);
            (u64::from_le_bytes(number), count)
        }
    };
    Some((number, &rest[more..]))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const SIZE: usize = 1_000;

    /// Returns a message of segment 7.
    pub(in crate::store::sled_engine) fn message_of(kind: u8, content: &[u8]) -> Vec<u8> {
        change(kind, 7, 60, content)
    }

    /// Returns a message of this segment for the page 240 + `page`.
    pub(in crate::store::sled_engine) fn change(kind: u8, segment: u8, page: u8, content: &[u8]) -> Vec<u8> {
        // The page's number takes two bytes.
        let header = [kind, u8::try_from(content.len()).unwrap(), segment, 241, page];
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(content);
        hasher.update(&header);
        [&(!hasher.finalize()).to_le_bytes()[..], &header, content].concat()
    }

    #[test]
    fn a_segment_is_whole_if_its_messages_lead_to_a_cap_or_to_its_end() {
        let head = [0; HEADER_BYTES];
        let two = [&head[..], &message_of(8, b"page"), &message_of(10, &[3; 200])].concat();
        let capped = [&two[..], &message_of(CAP, &[0; 9])].concat();
        assert_eq!(first_unreadable(&capped, SIZE, 7), None);
        assert_eq!(first_unreadable(&two, two.len() + MESSAGE_HEADER_BYTES - 1, 7), None);
        assert_eq!(first_unreadable(&two, SIZE, 7), Some(two.len()), "it goes on, with nothing");
        assert_eq!(first_unreadable(&[&two[..], &[0; 300]].concat(), SIZE, 7), Some(two.len()), "overwritten");
        assert_eq!(first_unreadable(&capped, SIZE, 8), Some(HEADER_BYTES), "of another time");
        for torn in HEADER_BYTES..capped.len() {
            let mut bytes = capped.clone();
            bytes[torn] ^= 1;
            assert!(first_unreadable(&bytes, SIZE, 7).is_some(), "a flipped bit at {torn} went unseen");
        }
    }

    #[test]
    fn numbers_are_read_as_sled_writes_them() {
        let read = |bytes: &[u8]| varint(bytes).map(|(number, rest)| (number, rest.len()));
        assert_eq!(read(&[240, 9]), Some((240, 1)));
        assert_eq!(read(&[241, 1, 9]), Some((241, 1)));
        assert_eq!(read(&[249, 0, 1]), Some((2_289, 0)));
        assert_eq!(read(&[250, 1, 2, 3]), Some((0x03_0201, 0)));
        assert_eq!(read(&[255, 1, 0, 0, 0, 0, 0, 0, 1, 5]), Some((1 << 56 | 1, 1)));
        assert_eq!(read(&[250, 1, 2]), None);
        assert_eq!(read(&[]), None);
    }
}
