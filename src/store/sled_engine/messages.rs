//! The messages of which sled's log consists, in a segment after its header.

/// The bytes of a segment's header, which come before its first message.
pub(super) const HEADER_BYTES: usize = 20;
/// The longest header of a message. If no more than this is left of a segment, there is no further message.
const MESSAGE_HEADER_BYTES: usize = 32;
/// The kind of a message that says that the rest of the segment is empty, and the last kind there is. Overwritten bytes
/// are of kind 0.
pub(super) const CAP: u8 = 2;
const LAST_KIND: u8 = 11;

/// Returns the place in the segment with this number at which no message follows the one before, or `None` if one
/// message follows another up to the segment's end.
pub(super) fn first_unreadable(segment: &[u8], segment_bytes: usize, number: u64) -> Option<usize> {
    let mut at = HEADER_BYTES;
    while at + MESSAGE_HEADER_BYTES <= segment_bytes {
        match segment.get(at..).and_then(|rest| message(rest, number)) {
            Some((CAP, _)) => return None,
            Some((_, length)) => at += length,
            None => return Some(at),
        }
    }
    None
}

/// The contents of a message's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    checksum: u32,
    kind: u8,
    segment: u64,
    // The lengths of the header and of the content, in bytes.
    header: usize,
    content: usize,
}

impl Parts {
    /// Returns the length of the message. A damaged header may say any length, so the sum does not overflow.
    pub(super) fn bytes(self) -> usize {
        self.header.saturating_add(self.content)
    }
}

/// Returns the kind of the message that `bytes` begin with, and its length; `None` if it is not a message of this
/// segment.
///
/// A message is a checksum over everything that follows it, a byte for the kind, the length of the content, the number
/// of the segment, that of the page, and the content.
pub(super) fn message(bytes: &[u8], number: u64) -> Option<(u8, usize)> {
    let parts = parts(bytes)?;
    let content = bytes.get(parts.header..parts.bytes())?;
    let mut hasher = crc32fast::Hasher::new();
    // sled takes the content first, then the header without the checksum.
    hasher.update(content);
    hasher.update(bytes.get(4..parts.header)?);
    let fits = parts.checksum == !hasher.finalize();
    let is_of_this_segment = parts.segment == number && (1..=LAST_KIND).contains(&parts.kind);
    (fits && is_of_this_segment).then_some((parts.kind, parts.bytes()))
}

/// Reads the header of a message, whether its checksum fits or not.
pub(super) fn parts(bytes: &[u8]) -> Option<Parts> {
    let (checksum, rest) = bytes.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first()?;
    let (content, rest) = varint(rest)?;
    let (segment, rest) = varint(rest)?;
    let (_page, rest) = varint(rest)?;
    let (header, content) = (bytes.len() - rest.len(), usize::try_from(content).ok()?);
    Some(Parts { checksum: u32::from_le_bytes(*checksum), kind: *kind, segment, header, content })
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
        // The number 300 takes two bytes.
        let header = [&[kind, u8::try_from(content.len()).unwrap(), 7, 241, 60][..]].concat();
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
