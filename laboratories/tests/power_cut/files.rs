//! The files that fjall made and removed, from a recording: it writes to journals, of which it removes the oldest one
//! when tables have what is in it, and to tables, of which it makes one of several.

use std::fmt;

use laboratories::disk::log::Event;

/// The numbers of files.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Files {
    pub(crate) tables_made: usize,
    pub(crate) tables_removed: usize,
    pub(crate) journals_made: usize,
    pub(crate) journals_removed: usize,
}

impl Files {
    /// Counts those of a recording.
    pub(crate) fn count(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Create(path) if is_table(path) => self.tables_made += 1,
                Event::Remove(path) if is_table(path) => self.tables_removed += 1,
                Event::Create(path) if path.ends_with(".jnl") => self.journals_made += 1,
                Event::Remove(path) if path.ends_with(".jnl") => self.journals_removed += 1,
                _ => {}
            }
        }
    }
}

impl Files {
    /// Returns whether files of both kinds were removed.
    pub(crate) fn are_used_up(&self) -> bool {
        self.tables_removed > 0 && self.journals_removed > 0
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tables_made, tables_removed, journals_made, journals_removed } = self;
        write!(f, "{tables_made} tables were made and {tables_removed} removed, ")?;
        write!(f, "{journals_made} journals made and {journals_removed} removed,")
    }
}

fn is_table(path: &str) -> bool {
    path.contains("/tables/")
}
