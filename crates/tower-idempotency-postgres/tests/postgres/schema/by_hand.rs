//! The lines of the guide, and of the heads of the files, for people who make the tables by hand.

use std::process::Command;

use tower_idempotency_postgres::PostgresBackend;
use tower_idempotency_shared::{Backend as _, Clocks};

use crate::lab::{builder, claim, client, id, own_server};

const GUIDE: &str = include_str!("../../../../../docs/running/shared.md");
const SQL: [&str; 2] = [include_str!("../../../src/schema.sql"), include_str!("../../../src/view.sql")];

/// The lines of a page or of a file's head that begin with this word.
fn lines<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.lines().map(|line| line.trim_start_matches("--").trim()).filter(|line| line.starts_with(word)).collect()
}

// Seeded faults: no schema is made, as before; the file has no search path of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_s_own_lines_make_the_tables_of_a_new_database_and_give_a_role_its_rights() {
    let Some(server) = own_server("that the guide's lines make the tables", &[]) else { return };
    let postgres = client(&server.url()).await;
    postgres
        .batch_execute("CREATE ROLE payments LOGIN; CREATE ROLE looks LOGIN; CREATE ROLE support LOGIN")
        .await
        .unwrap();
    let commands: Vec<_> = [GUIDE, SQL[0], SQL[1]].iter().flat_map(|text| lines(text, "psql ")).collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    let options = ["", "-c standard_conforming_strings=off", "-c search_path=shadows,pg_catalog"];
    for (number, (command, options)) in commands.iter().zip(options).enumerate() {
        let database = format!("by_hand_{number}");
        postgres.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        let url = format!("postgres://postgres@{}/{database}", server.address());
        let own = client(&url).await;
        own.batch_execute("CREATE SCHEMA shadows; CREATE DOMAIN shadows.timestamptz AS text").await.unwrap();
        // Twice: all is there the second time.
        for _ in 0..2 {
            let mut shell = Command::new("sh");
            shell.args(["-c", command]).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
            shell.env("PGHOST", server.address().ip().to_string()).env("PGPORT", server.address().port().to_string());
            shell.env("PGUSER", "postgres").env("PGDATABASE", &database).env("PGOPTIONS", options);
            let output = shell.output().unwrap();
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        }
        for line in lines(GUIDE, "GRANT ") {
            own.batch_execute(line).await.unwrap();
        }
        for line in SQL.iter().flat_map(|text| lines(text, "GRANT ")) {
            own.batch_execute(&line.split(';').next().unwrap().replace("...", "looks")).await.unwrap();
        }
        for role in ["payments", "looks"] {
            let url = url.replace("postgres@", &format!("{role}@"));
            let backend = builder(&url, role).open().await.unwrap();
            backend.put(Clocks::default(), &[claim(id(1))]).await.unwrap();
        }
        for role in ["looks", "support"] {
            let seen = client(&url.replace("postgres@", &format!("{role}@"))).await;
            let seen = seen.query_one("SELECT count(*) FROM idempotency.operation", &[]).await.unwrap();
            assert_eq!(seen.get::<_, i64>(0), 2);
        }
        // Nothing is left for it to make.
        PostgresBackend::from_url(&url.replace("postgres@", "looks@")).unwrap().migrate().await.unwrap();
    }
}
