//! The messages to PostgreSQL that put one row, as far as this program reads them.

/// The numbers of parameters of the statements that put one row, and the index of the row's kind: a claim, an outcome,
/// and `put_one_1`.
const STATEMENTS: [(u16, usize); 3] = [(11, 4), (12, 4), (15, 6)];

/// The kinds of rows, as in `schema.sql`.
pub(crate) const RUNNING: i16 = 1;
pub(crate) const COMPLETED: i16 = 3;

/// A put of one row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) kind: i16,
}

impl Put {
    /// Reads the put that these bytes begin with: a Bind with the parameters of one of these statements.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(b"B")?.get(4..)?;
        let (_portal, rest) = text(rest)?;
        let (_statement, rest) = text(rest)?;
        let (formats, rest) = number(rest)?;
        let rest = rest.get(2 * usize::from(formats)..)?;
        let (parameters, mut rest) = number(rest)?;
        let (_, kind) = STATEMENTS.into_iter().find(|(known, _)| *known == parameters)?;
        for _ in 0..kind {
            (_, rest) = parameter(rest)?;
        }
        let (kind, _) = parameter(rest)?;
        // A put of several rows has an array here.
        Some(Self { kind: i16::from_be_bytes(kind.try_into().ok()?) })
    }
}

/// Returns whether the server is ready for the next query after these bytes.
pub(crate) fn is_answered(bytes: &[u8]) -> bool {
    bytes.len() >= 6 && bytes[..bytes.len() - 1].ends_with(b"Z\0\0\0\x05")
}

fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

/// Reads a parameter. One that is null has no bytes.
fn parameter(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
    Some((rest.get(..length)?, &rest[length..]))
}
