//! What an answer's body says, where a judge reads it: `docs/meanings.md` has the tables.
