//! The rights of a role on the table, which are checked at opening.

use tower_idempotency_postgres::{PostgresBackend, PostgresError, PostgresStore, TransactionRecord};
use tower_idempotency_shared::{Backend as _, Clocks};

use crate::lab::{Lab, builder, claim, client, complete, id, is_done, own_server};

const RIGHTS: [&str; 7] = [
    "USAGE ON SCHEMA idempotency",
    "SELECT ON idempotency.version",
    "SELECT ON idempotency.record",
    "INSERT ON idempotency.record",
    "UPDATE ON idempotency.record",
    "DELETE ON idempotency.record",
    "EXECUTE ON ALL FUNCTIONS IN SCHEMA idempotency",
];

async fn open_as(lab: &Lab, role: &str) -> Result<PostgresBackend, PostgresError> {
    builder(&lab.url.replace("postgres@", &format!("{role}@")), &lab.namespace).open().await
}

/// Opens, and claims and completes an operation.
async fn opens_as(lab: &Lab, role: &str, number: u64) {
    let backend = open_as(lab, role).await.unwrap();
    let claim = claim(id(number));
    for write in [claim.clone(), complete(id(number), claim.token)] {
        let rows = backend.put(Clocks::default(), std::slice::from_ref(&write)).await.unwrap().rows;
        assert!(is_done(rows[0].as_ref(), &write));
    }
    assert!(backend.get(Clocks::default(), &[id(number)]).await.unwrap().rows[0].is_some());
    PostgresStore::open(backend).await.unwrap();
}

/// The statements that an error names to be run.
fn grants(error: &PostgresError) -> String {
    let PostgresError::Refused { reason } = error else { panic!("{error:?}") };
    reason.split_once("Run: ").unwrap_or_else(|| panic!("{reason}")).1.to_owned()
}

#[tokio::test]
async fn a_role_without_a_right_is_refused_at_opening_with_the_grant_that_it_needs() {
    let Some(server) = own_server("that a right that is missing is named", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.sql("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA idempotency FROM PUBLIC").await;
    for (number, missing) in RIGHTS.iter().enumerate() {
        let role = format!("role_{number}");
        let granted: String =
            RIGHTS.iter().filter(|right| right != &missing).map(|right| format!("GRANT {right} TO {role};")).collect();
        lab.sql(&format!("CREATE ROLE {role} LOGIN; {granted}")).await;
        let refused = open_as(&lab, &role).await.unwrap_err();
        let grants = grants(&refused);
        assert!(grants.contains(&format!("GRANT {missing} TO {role};")), "{missing}: {refused}");
        let (may, _) = missing.split_once(' ').unwrap();
        assert!(refused.to_string().contains(&format!("the role {role} lacks the right to {may} on ")), "{refused}");
        lab.sql(&grants).await;
        opens_as(&lab, &role, u64::try_from(number).unwrap()).await;
    }
}

#[tokio::test]
async fn a_role_without_any_right_needs_what_it_is_told_once() {
    let Some(server) = own_server("that all rights that are missing are named", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.sql(r#"REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA idempotency FROM PUBLIC; CREATE ROLE "my-role" LOGIN"#).await;
    let refused = open_as(&lab, "my-role").await.unwrap_err();
    lab.sql(&grants(&refused)).await;
    opens_as(&lab, "my-role", 1).await;
}

/// A role with all rights, but without a policy under row-level security: its updates do nothing and return no error.
#[tokio::test]
async fn a_role_that_row_level_security_keeps_from_rows_is_refused_at_opening() {
    let Some(server) = own_server("that row-level security is noticed", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.sql("ALTER TABLE idempotency.record ENABLE ROW LEVEL SECURITY").await;
    let commands = ["SELECT", "INSERT", "UPDATE", "DELETE"];
    for (number, missing) in commands.iter().enumerate() {
        let role = format!("role_{number}");
        let granted: String = RIGHTS.iter().map(|right| format!("GRANT {right} TO {role};")).collect();
        lab.sql(&format!("CREATE ROLE {role} LOGIN; {granted}")).await;
        for command in commands.iter().filter(|command| command != &missing) {
            let policy = if *command == "INSERT" { "WITH CHECK (true)" } else { "USING (true)" };
            lab.sql(&format!("CREATE POLICY {role}_{command} ON idempotency.record FOR {command} TO {role} {policy}"))
                .await;
        }
        let refused = open_as(&lab, &role).await.unwrap_err();
        assert!(matches!(refused, PostgresError::Refused { .. }), "{refused:?}");
        assert!(refused.to_string().contains("row-level security"), "{refused}");
        lab.sql(&format!("CREATE POLICY {role} ON idempotency.record TO {role} USING (true) WITH CHECK (true)")).await;
        opens_as(&lab, &role, u64::try_from(number).unwrap()).await;
    }
    // One that lets the role have the rows of another namespace.
    lab.sql(
        "CREATE ROLE other LOGIN NOINHERIT; GRANT role_0 TO other;
         GRANT USAGE ON SCHEMA idempotency TO other; GRANT SELECT ON idempotency.version TO other;
         GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency.record TO other;
         CREATE POLICY other ON idempotency.record TO other USING (namespace = 'other') WITH CHECK (namespace = 'other')",
    )
    .await;
    let refused = open_as(&lab, "other").await.unwrap_err();
    assert!(refused.to_string().contains("may not INSERT"), "{refused}");
    builder(&lab.url.replace("postgres@", "other@"), "other").open().await.unwrap();
}

/// A trigger may keep the rows as they are without an error.
#[tokio::test]
async fn a_trigger_that_keeps_the_store_from_writing_is_noticed_at_opening() {
    let Some(server) = own_server("that a trigger is noticed", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.sql("CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'").await;
    for command in ["INSERT", "UPDATE", "DELETE"] {
        lab.sql(&format!(
            "CREATE TRIGGER keep BEFORE {command} ON idempotency.record FOR EACH ROW EXECUTE FUNCTION keep()"
        ))
        .await;
        let refused = builder(&lab.url, &lab.namespace).open().await.unwrap_err();
        assert!(refused.to_string().contains(&format!("may not {command} rows")), "{refused}");
        lab.sql("DROP TRIGGER keep ON idempotency.record").await;
    }
    builder(&lab.url, &lab.namespace).open().await.unwrap();
}

#[tokio::test]
async fn opening_leaves_nothing_in_the_table_and_waits_for_one_that_is_locked() {
    let Some(server) = own_server("that opening writes nothing", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let rows = "SELECT count(*) FROM idempotency.record";
    assert_eq!(lab.client.query_one(rows, &[]).await.unwrap().get::<_, i64>(0), 0);
    lab.sql("BEGIN; LOCK TABLE idempotency.record IN ACCESS EXCLUSIVE MODE").await;
    let builder = builder(&lab.url, &lab.namespace).open_within(std::time::Duration::from_secs(120));
    let opening = tokio::spawn(builder.open());
    crate::lab::until_waiting(&crate::lab::client(&lab.url).await, "Lock").await;
    lab.sql("COMMIT").await;
    opening.await.unwrap().unwrap();
}

/// The application has another role than the store.
#[tokio::test]
async fn a_role_that_only_completes_in_its_transactions_needs_no_right_to_insert() {
    let Some(server) = own_server("the rights of a role that only completes", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.sql(
        "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA idempotency FROM PUBLIC; CREATE ROLE app LOGIN;
         GRANT USAGE ON SCHEMA idempotency TO app; GRANT SELECT, UPDATE ON idempotency.record TO app;
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA idempotency TO app",
    )
    .await;
    let app = client(&lab.url.replace("postgres@", "app@")).await;
    // The state belongs to no run, so the function looks for it.
    let completed = app.execute("SELECT idempotency.record_run_1($1)", &[&[0_u8; 76].as_slice()]).await;
    assert_eq!(completed.unwrap_err().code().unwrap().code(), TransactionRecord::SUPERSEDED);
}
