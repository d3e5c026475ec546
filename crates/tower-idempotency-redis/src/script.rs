//! The script, the names of its keys, and one call of it.

use bytes::Bytes;
use redis::{Cmd, Script, cmd};
use tower_idempotency::RecordId;

/// The text of the script, without its first line.
const TEXT: &str = include_str!("lua/rows.lua");

/// The script with two first lines, which say what the server refuses before it runs: their digests and texts.
///
/// Neither says that it does not write: so a replica refuses both at once.
pub(crate) struct Scripts([(String, String); 2]);

impl Scripts {
    pub(crate) fn new() -> Self {
        // Without memory, new rows are refused. Ends of runs, renewals and sweeps are not, nor are reads, which write
        // their barrier alone: a key with a record gets its answer.
        Self(["allow-oom", ""].map(|flags| {
            let text = format!("#!lua flags={flags}\n{TEXT}");
            (Script::new(&text).get_hash().to_owned(), text)
        }))
    }
}

/// The names of a namespace's keys, by their beginning. All have one hash tag, so they are in one slot, and on one
/// primary at a time.
pub(crate) struct Keys {
    beginning: String,
    /// The hash with the marker and the barrier, and the four indexes: the first keys of each call.
    fixed: [String; 5],
}

impl Keys {
    pub(crate) fn new(namespace: &str) -> Self {
        let beginning = format!("ti:{{{namespace}}}:");
        let fixed = ["m", "o", "i", "x", "s"].map(|name| format!("{beginning}{name}"));
        Self { beginning, fixed }
    }

    /// A key; the channel of changes, `c`; or the pattern of all that a user needs rights for, `*`.
    pub(crate) fn named(&self, name: &str) -> String {
        format!("{}{name}", self.beginning)
    }

    fn row(&self, id: &RecordId) -> Vec<u8> {
        [self.beginning.as_bytes(), b"r:", id.as_bytes()].concat()
    }
}

/// One call of the script.
pub(crate) struct Call {
    /// It may make new rows, and is refused as a whole for lack of memory.
    pub(crate) is_claim: bool,
    /// It is a renewal of the session alone, for which a connection is kept.
    pub(crate) renews: bool,
    pub(crate) rows: Vec<RecordId>,
    pub(crate) arguments: Vec<Bytes>,
}

impl Call {
    /// The command: by the script's digest, or with its text, for a server that does not know it.
    pub(crate) fn command(&self, keys: &Keys, scripts: &Scripts, with_text: bool) -> Cmd {
        let (digest, text) = &scripts.0[usize::from(self.is_claim)];
        let mut command = if with_text { cmd("EVAL") } else { cmd("EVALSHA") };
        command.arg(if with_text { text } else { digest }).arg(keys.fixed.len() + self.rows.len()).arg(&keys.fixed);
        self.rows.iter().for_each(|id| _ = command.arg(keys.row(id)));
        self.arguments.iter().for_each(|argument| _ = command.arg(&argument[..]));
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_namespace_have_its_tag() {
        let keys = Keys::new("payments");
        assert!(keys.fixed.iter().all(|key| key.starts_with("ti:{payments}:")));
        let row = keys.row(&RecordId::from_bytes([7; 32]));
        assert_eq!((&row[..16], row.len()), (b"ti:{payments}:r:".as_slice(), 48));
    }
}
