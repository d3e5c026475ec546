//! What a database has, as text, to compare two of them.

use std::process::Command;

use super::PostgresServer;

impl PostgresServer {
    /// The definitions of all that is in this schema of a database, comments and rights included.
    pub fn dump(&self, database: &str, schema: &str) -> String {
        let address = self.address();
        let mut dump = Command::new("pg_dump");
        dump.args(["--schema-only", "--schema", schema, "--username", "postgres", "--host"]);
        dump.args([address.ip().to_string(), "--port".to_owned(), address.port().to_string(), database.to_owned()]);
        let output = dump.output().expect("pg_dump comes with the server");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("SQL is text");
        // Each dump is restricted by a word of its own.
        text.lines().filter(|line| !line.contains("restrict ")).map(|line| format!("{line}\n")).collect()
    }
}
