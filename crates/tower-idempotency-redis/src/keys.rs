//! The names of a namespace's keys. All have one hash tag, so they are in one slot, and on one primary at a time.

use tower_idempotency::RecordId;

/// The names of the keys.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

/// The slots of a cluster.
const SLOTS: u16 = 16_384;

impl Keys {
    pub(crate) fn new(namespace: &str) -> Self {
        Self { prefix: format!("ti:{{{namespace}}}:") }
    }

    /// The hash with the marker and the barrier, and the four indexes: the first keys of each call.
    pub(crate) fn fixed(&self) -> [String; 5] {
        ["m", "o", "i", "x", "s"].map(|name| format!("{}{name}", self.prefix))
    }

    pub(crate) fn row(&self, id: &RecordId) -> Vec<u8> {
        [self.prefix.as_bytes(), b"r:", id.as_bytes()].concat()
    }

    pub(crate) fn channel(&self) -> String {
        format!("{}c", self.prefix)
    }

    /// The pattern of the keys and channels that a user needs rights for.
    pub(crate) fn pattern(&self) -> String {
        format!("{}*", self.prefix)
    }

    /// The slot of all keys: the checksum of the hash tag.
    pub(crate) fn slot(&self) -> u16 {
        let tag = self.prefix.trim_start_matches("ti:{").trim_end_matches("}:");
        crc16(tag.as_bytes()) % SLOTS
    }
}

/// The checksum CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_in_the_slot_that_a_cluster_gives_its_tag() {
        // The check value of this checksum, and a slot of the cluster's specification.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(Keys::new("foo").slot(), 12_182);
    }

    #[test]
    fn all_keys_of_a_namespace_have_its_tag() {
        let keys = Keys::new("payments");
        assert!(keys.fixed().iter().all(|key| key.starts_with("ti:{payments}:")));
        let row = keys.row(&RecordId::from_bytes([7; 32]));
        assert_eq!((&row[..16], row.len()), (b"ti:{payments}:r:".as_slice(), 48));
    }
}
