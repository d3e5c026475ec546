//! The view for people who look with SQL, and how it gets to a database.

use axum::body::Body;
use axum::routing::post;
use axum::{Extension, Router};
use http::{Request, StatusCode};
use testkit::Gate;
use testkit::lab::insert_bytes;
use testkit::lab::steps::{Claimed, Steps as _, wish};
use tower::ServiceExt as _;
use tower_idempotency::internals::{Cause, Described, Origin, Records as _, Transition};
use tower_idempotency::{Fingerprint, IdempotencyLayer, Key, RecordId, Scope, Unsure};
use tower_idempotency_postgres::tokio_postgres::{Client, Row, SimpleQueryMessage};
use tower_idempotency_postgres::{PostgresBackend, PostgresStore};

use super::encodings::database;
use super::roles::SHADOWS;
use crate::lab::{Lab, client, own_server};

/// In the body and in a kept header of each answer.
const CANARY: &str = "canary-8d1f";
const VERSION_1: &str = include_str!("../../../src/schema.sql");
const VIEW: &str = include_str!("../../../src/view.sql");

/// Answers as its path says. Its runs wait at the gate where they shall.
fn app(layer: IdempotencyLayer<PostgresStore>, gate: Gate) -> Router {
    let waits = move || async move {
        gate.pass().await;
        CANARY
    };
    let unsure = || async { (StatusCode::BAD_GATEWAY, Extension(Unsure), CANARY) };
    let router = Router::new()
        .route("/done", post(|| async { (StatusCode::CREATED, [("location", CANARY)], CANARY) }))
        .route("/bare", post(|| async { StatusCode::NO_CONTENT }))
        .route("/waits", post(waits))
        .route("/long", post(|| async { (StatusCode::ACCEPTED, CANARY.repeat(100)) }))
        .route("/unsure", post(unsure));
    router.layer(layer)
}

async fn send(app: &Router, path: &str, key: &str) {
    let request = Request::post(path)
        .header("idempotency-key", key)
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
}

async fn store(lab: &Lab) -> PostgresStore {
    PostgresStore::open(lab.another().await).await.unwrap()
}

fn layer(store: PostgresStore) -> IdempotencyLayer<PostgresStore> {
    IdempotencyLayer::new(store)
        .scope(|_| Ok(Some(Scope::new("account-7").unwrap())))
        .label(|parts| Some(format!("charge {}", parts.uri.path())))
        .max_response_body(500)
}

/// The row of the operation with this label.
async fn labelled(client: &Client, label: &str) -> Row {
    client.query_one("SELECT * FROM idempotency.operation WHERE label = $1", &[&label]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_view_says_what_an_operation_is_and_shows_no_answer() {
    let Some(server) = own_server("what the view shows", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let (store, gate) = (store(&lab).await, Gate::default());
    let app = app(layer(store.clone()), gate.clone());
    for path in ["/done", "/bare", "/long", "/unsure"] {
        send(&app, path, path).await;
    }
    let running = tokio::spawn({
        let app = app.clone();
        async move { send(&app, "/waits", "/waits").await }
    });
    gate.arrival().await;

    let scope = Scope::new("account-7").unwrap();
    for (path, kind, status, has_bytes) in [
        ("/done", "completed", Some(201), true),
        ("/bare", "completed", Some(204), true),
        ("/long", "consumed", Some(202), false),
        ("/unsure", "interrupted", Some(502), false),
        ("/waits", "running", None, false),
    ] {
        let row = labelled(&lab.client, &format!("charge {path}")).await;
        assert_eq!(row.get::<_, String>("kind"), kind, "{path}");
        assert_eq!(row.get::<_, Option<i64>>("status"), status, "{path}");
        assert_eq!(row.get::<_, Option<i64>>("bytes").is_some(), has_bytes, "{path}");
        assert_eq!(row.get::<_, Option<i64>>("attempt"), Some(1), "{path}");
        assert_eq!(row.get::<_, String>("namespace"), lab.namespace, "{path}");
        let id = RecordId::new(Some(&scope), &Key::new(path).unwrap());
        assert_eq!(row.get::<_, String>("id"), id.to_string(), "{path}");
        assert_eq!(row.get::<_, Option<String>>("session").is_some(), kind == "running", "{path}");
        assert!(row.get::<_, i64>("fence") > 1 << 40, "{path}");
        let digest: String = scope.digest().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(row.get::<_, Option<String>>("scope"), Some(digest), "{path}");
        assert_eq!(row.get::<_, &str>("trace_id"), "0af7651916cd43dd8448eb211c80319c", "{path}");
    }
    let rows = lab.client.query("SELECT o::text FROM idempotency.operation o", &[]).await.unwrap();
    assert_eq!(rows.len(), 5, "no session is shown");
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    for row in rows {
        let text: String = row.get(0);
        assert!(!text.contains(CANARY) && !text.contains(&hex), "{text}");
    }
    gate.open();
    running.await.unwrap();
}

/// The view has the names of the causes in a text of its own.
#[tokio::test]
async fn the_cause_of_each_interruption_is_shown_by_its_name() {
    let Some(server) = own_server("that causes are shown", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let store = store(&lab).await;
    for (number, cause) in Cause::ALL.into_iter().chain([Cause::Answered(504)]).enumerate() {
        let Claimed::Fresh(hold) = store.claim(wish(&number.to_string())).await.unwrap() else { panic!("{cause}") };
        let interrupt = Transition::Interrupt { fence: hold.fence, cause, lost: None };
        store.apply(hold.id, interrupt).await.unwrap();
        let shown = "SELECT cause, status FROM idempotency.operation WHERE id = $1";
        let row = lab.client.query_one(shown, &[&hold.id.to_string()]).await.unwrap();
        assert_eq!(row.get::<_, Option<&str>>("cause"), Some(cause.name()));
        assert_eq!(row.get::<_, Option<i64>>("status"), cause.status().map(i64::from), "{cause}");
    }
}

/// A consumer's outcome is the application's, without a status. A transaction of the application marks its row.
#[tokio::test]
async fn outcomes_of_every_origin_are_shown() {
    let Some(server) = own_server("that outcomes of every origin are shown", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let store = store(&lab).await;
    for (number, outcome) in
        ["mail sent", "", "\u{1}", "\u{1}\u{2}", "\u{1}\u{64}\u{1}\u{4}a b"].into_iter().enumerate()
    {
        let id = RecordId::new(None, &Key::new(&format!("message-{number}")).unwrap());
        let origin = Origin::of(Described { label: Some(format!("message {number}")), ..Described::default() });
        insert_bytes(&store, id, Fingerprint::of(b"message"), origin, outcome).await;
        let row = labelled(&lab.client, &format!("message {number}")).await;
        assert_eq!(row.get::<_, Option<i64>>("status"), None, "{outcome:?}");
        assert_eq!(row.get::<_, i64>("bytes"), i64::try_from(outcome.len()).unwrap(), "{outcome:?}");
        assert_eq!(row.get::<_, Option<String>>("scope"), None, "{outcome:?}");
    }
    // As `complete_in` has it.
    lab.sql("UPDATE idempotency.record SET state = set_byte(state, 0, 129) WHERE kind = 3").await;
    assert_eq!(labelled(&lab.client, "message 0").await.get::<_, i64>("bytes"), 9);
    // As a run has it whose operation was taken over: `session` is the operation's row.
    lab.sql("UPDATE idempotency.record SET kind = 7, session = id, id = sha256(id) WHERE kind = 3").await;
    let row = labelled(&lab.client, "message 0").await;
    assert_eq!((row.get("kind"), row.get::<_, Option<&str>>("session")), ("disputed", None));
    let id = RecordId::new(None, &Key::new("message-0").unwrap());
    assert_eq!(row.get::<_, String>("id"), id.to_string());
}

/// Every cut and every changed byte of records in each state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_view_can_be_read_whatever_the_bytes_of_a_record_are() {
    let Some(server) = own_server("that damaged records can be read", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let app = app(layer(store(&lab).await), Gate::default());
    for path in ["/done", "/bare", "/long", "/unsure"] {
        send(&app, path, path).await;
    }
    let cut = "SELECT d.* FROM idempotency.record r, generate_series(0, octet_length(r.state) - 1) AS n,
        idempotency.described_1(substring(r.state FROM 1 FOR n)) AS d WHERE r.kind <> 6";
    for row in lab.client.query(cut, &[]).await.unwrap() {
        assert_eq!(row.get::<_, Option<i64>>("attempt"), None);
        assert_eq!(row.get::<_, Option<String>>("label"), None);
    }
    let changed = "SELECT count(d.*) FROM idempotency.record r, generate_series(0, octet_length(r.state) - 1) AS n,
        unnest('{0,1,2,3,4,127,128,200,255}'::integer[]) AS byte,
        idempotency.described_1(set_byte(r.state, n, byte)) AS d WHERE r.kind <> 6";
    assert!(lab.client.query_one(changed, &[]).await.unwrap().get::<_, i64>(0) > 1_000);
    // A format that this release does not know.
    lab.sql("UPDATE idempotency.record SET state = set_byte(state, 0, 2)").await;
    let rows = lab.client.query("SELECT * FROM idempotency.operation", &[]).await.unwrap();
    assert!(rows.len() == 4 && rows.iter().all(|row| row.get::<_, Option<i64>>("attempt").is_none()));
    assert!(rows.iter().all(|row| row.get::<_, &str>("id").len() == 64));
}

#[tokio::test]
async fn a_label_without_letters_in_the_database_hides_nothing_else() {
    let Some(server) = own_server("labels in another encoding", &[]) else { return };
    let lab = Lab::new(&database(&server, "LATIN1").await).await;
    let store = store(&lab).await;
    for (label, shown) in [("caf\u{e9}", Some("caf\u{e9}")), ("\u{65e5}\u{672c}", None)] {
        lab.sql("DELETE FROM idempotency.record WHERE kind <> 6").await;
        let app = app(layer(store.clone()).label(move |_| Some(label.to_owned())), Gate::default());
        send(&app, "/done", label_key(shown)).await;
        let row = lab.client.query_one("SELECT * FROM idempotency.operation", &[]).await.unwrap();
        assert_eq!(row.get::<_, Option<&str>>("label"), shown);
        assert_eq!(row.get::<_, Option<i64>>("status"), Some(201));
    }
}

/// A header has no other letters than these.
fn label_key(shown: Option<&str>) -> &'static str {
    if shown.is_some() { "with-letters" } else { "without" }
}

#[tokio::test]
async fn a_role_may_look_without_a_right_on_the_table() {
    let Some(server) = own_server("the rights that looking needs", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    send(&app(layer(store(&lab).await), Gate::default()), "/done", "k").await;
    lab.sql(
        "CREATE ROLE support LOGIN; GRANT USAGE ON SCHEMA idempotency TO support;
         GRANT SELECT ON idempotency.operation TO support",
    )
    .await;
    let support = client(&lab.url.replace("postgres@", "support@")).await;
    assert_eq!(labelled(&support, "charge /done").await.get::<_, Option<i64>>("status"), Some(201));
    for refused in ["SELECT state FROM idempotency.record", "DELETE FROM idempotency.operation"] {
        assert!(support.batch_execute(refused).await.is_err(), "{refused}");
    }
}

#[tokio::test]
async fn open_operations_are_found_by_their_index() {
    let Some(server) = own_server("that the view uses an index", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    for kind in ["running", "interrupted", "disputed"] {
        let explain = format!(
            "SET enable_seqscan = off; EXPLAIN SELECT id, label FROM idempotency.operation WHERE kind = '{kind}'"
        );
        let plan: Vec<String> = lab
            .client
            .simple_query(&explain)
            .await
            .unwrap()
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap().to_owned()),
                _ => None,
            })
            .collect();
        let plan = plan.join("\n");
        assert!(plan.contains("record_open") && plan.matches("record r").count() == 1, "{plan}");
    }
}

#[tokio::test]
async fn all_that_is_made_has_a_comment() {
    let Some(server) = own_server("that all has a comment", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let bare = "
        SELECT 'schema' WHERE obj_description('idempotency'::regnamespace, 'pg_namespace') IS NULL
        UNION ALL SELECT c.relname FROM pg_class c
            WHERE c.relnamespace = 'idempotency'::regnamespace AND c.relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL
        UNION ALL SELECT c.relname || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = 'idempotency'::regnamespace AND c.relkind IN ('r', 'v') AND a.attnum > 0
                AND col_description(c.oid, a.attnum) IS NULL AND (c.relname, a.attname) <> ('version', 'version')
        UNION ALL SELECT p.proname FROM pg_proc p
            WHERE p.pronamespace = 'idempotency'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL";
    let bare = lab.client.query(bare, &[]).await.unwrap();
    let bare: Vec<String> = bare.iter().map(|row| row.get(0)).collect();
    assert!(bare.is_empty(), "{bare:?}");
    // A schema of another role, or with a comment of its own, keeps it.
    lab.sql(
        "CREATE ROLE maker LOGIN; CREATE SCHEMA theirs; COMMENT ON SCHEMA theirs IS 'ours';
         GRANT ALL ON SCHEMA theirs TO maker; CREATE SCHEMA bare; GRANT ALL ON SCHEMA bare TO maker",
    )
    .await;
    for (schema, comment) in [("theirs", Some("ours")), ("bare", None)] {
        let maker = PostgresBackend::from_url(&lab.url.replace("postgres@", "maker@")).unwrap();
        maker.schema(schema).unwrap().migrate().await.unwrap();
        let said = "SELECT obj_description($1::text::regnamespace, 'pg_namespace')";
        let said = lab.client.query_one(said, &[&schema]).await.unwrap();
        assert_eq!(said.get::<_, Option<&str>>(0), comment, "{schema}");
        let there = format!("SELECT FROM {schema}.operation");
        lab.client.batch_execute(&there).await.unwrap();
    }
}

/// A database as a release without the view has left it.
async fn version_1(url: &str) -> Client {
    let client = client(url).await;
    client.batch_execute(&format!("CREATE SCHEMA idempotency; BEGIN; {VERSION_1}; COMMIT")).await.unwrap();
    client
}

async fn has_view(client: &Client) -> bool {
    let there = "SELECT to_regclass('idempotency.operation') IS NOT NULL";
    client.query_one(there, &[]).await.unwrap().get(0)
}

/// During a rolling deployment, servers of both releases write.
#[tokio::test]
async fn an_upgrade_waits_for_no_writer_and_no_writer_for_it() {
    let Some(server) = own_server("that an upgrade holds up no writer", &[]) else { return };
    let writer = version_1(&server.url()).await;
    PostgresBackend::from_url(&server.url()).unwrap().open().await.unwrap();
    writer
        .batch_execute(
            "BEGIN; INSERT INTO idempotency.record (namespace, id, token, fence, kind, began, since, expires, state)
             SELECT 'n', sha256('id'), gen_random_uuid(), 1, 3, now(), now(), now(), ''",
        )
        .await
        .unwrap();
    let migration = PostgresBackend::from_url(&server.url()).unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(50), migration.migrate()).await.unwrap().unwrap();
    writer.batch_execute("COMMIT").await.unwrap();
    assert!(has_view(&writer).await);
}

#[tokio::test]
async fn a_role_that_may_not_make_the_view_serves_without_it() {
    let Some(server) = own_server("that a role without rights serves", &[]) else { return };
    let owner = version_1(&server.url()).await;
    owner
        .batch_execute(
            "CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA idempotency TO app;
             GRANT SELECT ON idempotency.version TO app;
             GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency.record TO app",
        )
        .await
        .unwrap();
    let app = || PostgresBackend::from_url(&server.url().replace("postgres@", "app@")).unwrap();
    app().migrate().await.unwrap();
    app().open().await.unwrap();
    assert!(!has_view(&owner).await);
    PostgresBackend::from_url(&server.url()).unwrap().migrate().await.unwrap();
    assert!(has_view(&owner).await);
    app().migrate().await.unwrap();
    // Where the tables are missing, the error says so.
    owner.batch_execute("DROP SCHEMA idempotency CASCADE; CREATE SCHEMA idempotency").await.unwrap();
    app().migrate().await.unwrap_err();
}

#[tokio::test]
async fn the_view_uses_no_operators_that_others_have_made() {
    let Some(server) = own_server("that the view uses no operators of others", &[]) else { return };
    let owner = version_1(&server.url()).await;
    owner.batch_execute(SHADOWS).await.unwrap();
    // In front of those of the database, for a migration by hand.
    let by_hand = format!("SET search_path = shadows, pg_catalog; BEGIN; {VIEW}; COMMIT; SET search_path = pg_catalog");
    owner.batch_execute(&by_hand).await.unwrap();
    assert!(has_view(&owner).await);
    owner.batch_execute("ALTER ROLE postgres RESET search_path").await.unwrap();
    let lab = Lab::new(&server.url()).await;
    send(&app(layer(store(&lab).await), Gate::default()), "/done", "k").await;
    assert_eq!(labelled(&owner, "charge /done").await.get::<_, Option<i64>>("status"), Some(201));
    owner.batch_execute("SELECT * FROM idempotency.operation WHERE kind = 'interrupted'").await.unwrap();
}

#[tokio::test]
async fn the_statements_of_the_guide_run() {
    let Some(server) = own_server("that the guide's statements run", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.sql("CREATE ROLE support").await;
    let page = include_str!("../../../../../docs/running/shared.md");
    let (_, section) = page.split_once("### Looking with SQL").unwrap();
    let (section, _) = section.split_once("\n### ").unwrap();
    let blocks: Vec<_> =
        section.split("```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap().1).collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        lab.client.batch_execute(block).await.unwrap();
    }
}
