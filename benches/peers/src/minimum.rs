//! What the least code by hand keeps of a request.

/// The digest of a request, which a claim contains.
pub const DIGEST: [u8; 32] = [1; 32];
/// The size of an outcome's record without the answer: its status and headers.
pub const HEAD: [u8; 100] = [2; 100];
