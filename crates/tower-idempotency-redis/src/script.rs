//! The script, and one call of it.

use redis::{Cmd, Script, cmd};
use tower_idempotency_shared::Clocks;

use super::keys::Keys;
use super::wire::number;

/// The text of the script, without its first line.
const TEXT: &str = include_str!("lua/rows.lua");

/// The sorts of calls. All have one text, and the first line says what the server refuses before it runs.
///
/// None says that it does not write: so a replica refuses each at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// New rows, which are refused for lack of memory.
    Claim,
    /// Ends of runs, renewals and all other writes, which are not.
    End,
    /// Reads, which are not refused for it either: a key with a record gets its answer. They write their barrier alone.
    Read,
}

impl Sort {
    const ALL: [Self; 3] = [Self::Claim, Self::End, Self::Read];

    fn flags(self) -> &'static str {
        match self {
            Self::Claim => "",
            Self::End | Self::Read => "allow-oom",
        }
    }
}

/// The three scripts.
pub(crate) struct Scripts([(String, String); 3]);

impl Scripts {
    pub(crate) fn new() -> Self {
        Self(Sort::ALL.map(|sort| {
            let text = format!("#!lua flags={}\n{TEXT}", sort.flags());
            let digest = Script::new(&text).get_hash().to_owned();
            (digest, text)
        }))
    }
}

/// One call of a script.
pub(crate) struct Call {
    pub(crate) sort: Sort,
    keys: Vec<Vec<u8>>,
    arguments: Vec<Vec<u8>>,
}

impl Call {
    /// A call of `operation` of the script. `marker` is for a namespace that has none yet.
    pub(crate) fn new(sort: Sort, operation: &str, keys: &Keys, clocks: Clocks, marker: &str) -> Self {
        let (earliest, latest) = (number::time(clocks.earliest), number::time(clocks.latest));
        let arguments = [operation, &earliest, &latest, marker].map(|text| text.as_bytes().to_vec());
        Self { sort, keys: keys.fixed().map(String::into_bytes).to_vec(), arguments: arguments.to_vec() }
    }

    pub(crate) fn key(&mut self, key: Vec<u8>) {
        self.keys.push(key);
    }

    pub(crate) fn arguments(&mut self, arguments: impl IntoIterator<Item = Vec<u8>>) {
        self.arguments.extend(arguments);
    }

    /// The command: by the script's digest, or with its text, for a server that does not know it.
    pub(crate) fn command(&self, scripts: &Scripts, with_text: bool) -> Cmd {
        let (digest, text) = &scripts.0[self.sort as usize];
        let mut command = if with_text { cmd("EVAL") } else { cmd("EVALSHA") };
        command.arg(if with_text { text } else { digest }).arg(self.keys.len());
        for part in self.keys.iter().chain(&self.arguments) {
            command.arg(part.as_slice());
        }
        command
    }
}
