//! BLAKE3 over bytes that come in parts.

use std::fmt;
use std::sync::LazyLock;

use blake3::Hasher;
use blake3::hazmat::{ContextKey, HasherExt as _};

/// Up to this number of bytes, parts are gathered before they are hashed: BLAKE3 hashes several blocks at a time if
/// they come as a whole, and copying is quicker than hashing. Beyond it, gathering gains nothing.
const GATHERED: usize = 64 * 1024;
/// How many bytes the small parts of most requests take.
const USUAL: usize = 512;

/// The purpose of a digest: a context in BLAKE3's sense, so that no two purposes have a digest in common. Its key is
/// derived once.
pub(crate) type Purpose = LazyLock<ContextKey>;

/// Hashes bytes that come part by part; the digest is that of all parts in a row.
#[derive(Clone)]
pub(crate) struct Digester {
    purpose: &'static ContextKey,
    gathered: Vec<u8>,
    // `Some` once there are too many bytes to gather them.
    hasher: Option<Box<Hasher>>,
}

impl Digester {
    pub(crate) fn new(purpose: &'static Purpose) -> Self {
        Self { purpose, gathered: Vec::new(), hasher: None }
    }

    #[inline]
    pub(crate) fn update(&mut self, part: &[u8]) -> &mut Self {
        // There is nearly always room. There is none once `hasher` has the bytes.
        if part.len() <= self.gathered.capacity() - self.gathered.len() {
            self.gathered.extend_from_slice(part);
            return self;
        }
        self.update_beyond(part)
    }

    fn update_beyond(&mut self, part: &[u8]) -> &mut Self {
        if self.hasher.is_none() && self.gathered.len() + part.len() <= GATHERED {
            self.gathered.reserve(USUAL.max(part.len()));
            self.gathered.extend_from_slice(part);
            return self;
        }
        // This leaves no room in `gathered`.
        let gathered = std::mem::take(&mut self.gathered);
        let begin = || Box::new(Hasher::new_from_context_key(self.purpose));
        self.hasher.get_or_insert_with(begin).update(&gathered).update(part);
        self
    }

    /// Returns whether no byte came.
    pub(crate) fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.hasher.is_none()
    }

    pub(crate) fn finish(&self) -> [u8; 32] {
        match &self.hasher {
            Some(hasher) => hasher.finalize().into(),
            None => Hasher::new_from_context_key(self.purpose).update(&self.gathered).finalize().into(),
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
    use blake3::hazmat::hash_derive_key_context;
    use proptest::prelude::*;

    use super::*;

    const CONTEXT: &str = "tower-idempotency 2026 test";
    static TEST: Purpose = LazyLock::new(|| hash_derive_key_context(CONTEXT));

    proptest! {
        #[test]
        fn the_digest_is_that_of_all_parts_in_a_row(lengths in prop::collection::vec(0..2 * GATHERED, 0..6)) {
            let mut digester = Digester::new(&TEST);
            let mut all = Vec::new();
            for (number, length) in (0_u8..).zip(lengths) {
                let part = vec![number; length];
                digester.update(&part);
                all.extend(part);
            }
            prop_assert_eq!(digester.finish(), blake3::derive_key(CONTEXT, &all));
        }
    }
}
