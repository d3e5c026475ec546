//! The SQL for those who make the tables themselves.

use std::process::Command;

use testkit::postgres::own_server;
use tower_idempotency_outbox::PostgresOutbox;
use tower_idempotency_postgres::PostgresBackend;

use crate::program::{idem, program};

const GUIDE: &str = include_str!("../../../../docs/running/shared.md");

#[test]
fn it_writes_what_the_libraries_have_and_needs_no_store() {
    let builder = PostgresBackend::from_url("postgres://h").unwrap();
    let text = |migrations: Vec<(i32, String)>| migrations.into_iter().map(|(_, sql)| sql + "\n").collect::<String>();
    let store = builder.clone().schema("payments_2").unwrap();
    for (options, migrations) in [
        (&[][..], builder.migrations(None)),
        (&["--schema", "payments_2", "--role", "my role"], store.migrations(Some("my role"))),
        (&["--after", "1"], builder.migrations(None).split_off(1)),
        (&["--outbox", "shop"], PostgresOutbox::migrations("shop", None).unwrap()),
    ] {
        let said = idem(&[&["migrations"], options].concat());
        assert_eq!((said.code, said.stdout), (0, text(migrations)), "{options:?}");
    }
    let versions = idem(&["migrations", "--json"]).json();
    assert_eq!((&versions[0]["version"], &versions[1]["version"]), (&1.into(), &2.into()));
    for wrong in [["--schema", "a.b"], ["--outbox", "a.b"]] {
        assert_eq!(idem(&[&["migrations"][..], &wrong].concat()).code, 2, "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_s_lines_make_the_tables_and_give_a_role_its_rights() {
    let Some(server) = own_server("that the guide's lines make the tables", &[]) else { return };
    let client = crate::postgres::client(&server).await;
    client.batch_execute("CREATE ROLE payments LOGIN").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("migrations")).unwrap();
    let lines: Vec<_> = GUIDE.lines().filter(|line| line.starts_with("idem migrations ")).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for line in lines {
        let idem = program(&[""; 0]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(line.replacen("idem", &idem.get_program().to_string_lossy(), 1)).current_dir(&directory);
        shell.env("PGHOST", server.address().ip().to_string()).env("PGPORT", server.address().port().to_string());
        let output = shell.env("PGUSER", "postgres").env("PGDATABASE", "postgres").output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let url = server.url().replace("postgres@", "payments@");
    PostgresBackend::from_url(&url).unwrap().open().await.unwrap();
    let files = ["0007_tower_idempotency.sql", "V7__tower_idempotency.sql"];
    for file in files {
        let file = std::fs::read_to_string(directory.path().join("migrations").join(file)).unwrap();
        client.batch_execute(&format!("BEGIN; {file} COMMIT")).await.unwrap();
    }
}
