//! Rows that a later release has written. A server that does not know their format answers 503, and leaves them as they
//! are. Over Redis the script itself refuses such a row, which a test of that store shows.

use futures_util::future::join_all;
use testkit::Call;
use testkit::history::{ClientAnswer, History, Policy};
use testkit::postgres::PostgresServer;
use testkit::skipped;
use tower_idempotency_postgres::tokio_postgres::Client;

use crate::client::{Clients, SLOW, VISA};
use crate::database::Fault;
use crate::database::postgres::{open, rows, sql};
use crate::fleet::{Fleet, SERVERS};
use crate::report::Report;

/// The changes that a later release might have made to a row: bytes in another version, with any content, or an unknown
/// kind.
const WRITTEN: [(&str, &str); 4] = [
    ("version", "state = set_byte(state, 0, 99)"),
    ("nothing-else", r"state = '\x63'"),
    ("kind", "kind = 99"),
    ("both", "kind = 99, state = set_byte(state, 0, 99)"),
];
const POLICIES: [&str; 3] = ["refuse", "rerun", "reconcile"];

/// A charge whose row a later release has written.
#[derive(Debug, Clone)]
struct Key {
    name: String,
    source: &'static str,
}

/// Returns a completed key and an interrupted one. Under `rerun` an interrupted run is a released one, and no byte of a
/// row's state says that it was released: there the second key comes only with a change of the kind.
fn keys(way: &str, policy: &str) -> Vec<Key> {
    let key = |state, source| Key { name: format!("{state}-{way}"), source };
    let mut keys = vec![key("completed", VISA)];
    if policy != "rerun" || way == "kind" {
        keys.push(key("interrupted", "tok_timeout"));
    }
    keys
}

async fn run(database: &PostgresServer, policy: &str) -> Report {
    let arguments = format!("--store {} --namespace {policy} --lease 12 --on-interrupted {policy}", database.url());
    let mut fleet = Fleet::start(|_| arguments.clone()).await;
    let (sql, mut report) = (sql(database).await, Report::default());
    let history = History::new(Policy::Refuse);
    let clients = Clients::new(&fleet.balancer, &history);

    // This release writes the rows first.
    let mut written = Vec::new();
    for (way, change) in WRITTEN {
        let keys = keys(way, policy);
        for key in &keys {
            fleet.balancer.send_to(0, &Call::charge_of(&key.name, key.source)).await.expect("the server answers");
        }
        write_anew(&sql, policy, change).await;
        written.extend(keys);
    }
    // One charge is under way while its row is rewritten.
    let under_way = tokio::spawn({
        let balancer = fleet.balancer.clone();
        async move { balancer.send_alone(0, &Call::charge_of("running", SLOW)).await }
    });
    fleet.server(0).charge_begun(SLOW, 1).await;
    write_anew(&sql, policy, "state = set_byte(state, 0, 99)").await;
    written.push(Key { name: "running".to_owned(), source: SLOW });
    let before = rows(&sql, policy).await;
    let late = under_way.await.expect("no client panics").expect("the server answers");
    report.figure(format!("{policy}: rows {}, the run that was under way {}", before.len(), late.status));
    report.expect(rows(&sql, policy).await == before, || format!("{policy}: the end of a run has overwritten a row"));
    let charged = fleet.effects().await;
    for number in 0..SERVERS {
        fleet.kill(number);
        fleet.start_again(number).await;
    }
    // The checker knows nothing of these rows: from here on no key of them has an outcome or an effect.
    for _ in 0..2 {
        for key in &written {
            let told = join_all((0..SERVERS).map(|number| clients.send_to(number, &key.name, key.source))).await;
            for (number, told) in told.into_iter().enumerate() {
                let is_right = told == ClientAnswer::refused("store-unavailable");
                report.expect(is_right, || format!("{policy}: {} at server {number}: {told:?}", key.name));
            }
        }
    }
    // An operator can't settle them either.
    for number in 0..SERVERS {
        let listed = fleet.server(number).interrupted().await;
        report.expect(listed.is_empty(), || format!("{policy}: listed are {listed:?}"));
        let purge = serde_json::json!({ "older_than": "0s" });
        let purged = fleet.server(number).send(&Call::operator_post("/admin/api/purge", &purge)).await;
        report.expect(purged.json()["forgotten"] == 0, || format!("{policy}: purged are {}", purged.text()));
    }
    report.expect(rows(&sql, policy).await == before, || format!("{policy}: rows were overwritten"));
    let effects = fleet.effects().await;
    report.expect(effects == charged, || format!("{policy}: {effects:?} are charged after {charged:?}"));
    // The servers still serve the records of this release.
    clients.ask_all(SERVERS, "new").await;
    history.effect("new");
    report.judge(&clients);
    report
}

/// Starts a server, and may break something. Returns `None` if the promise can't be shown here.
async fn database(promise: &str, fault: Option<Fault>) -> Option<PostgresServer> {
    open(fault, false).await.map_err(|obstacle| skipped(promise, &obstacle)).ok()
}

/// Changes the rows that no later release has written yet.
async fn write_anew(sql: &Client, namespace: &str, change: &str) {
    let at =
        format!("namespace = '{namespace}' AND kind NOT IN (6, 99) AND encode(substring(state for 1), 'hex') <> '63'");
    let update = format!("UPDATE idempotency.record SET token = gen_random_uuid(), {change} WHERE {at}");
    sql.batch_execute(&update).await.expect("sound SQL");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_in_an_unknown_format_is_answered_503_and_never_overwritten() {
    let name = "mixed versions";
    let Some(database) = database(name, None).await else { return };
    let mut report = Report::default();
    for policy in POLICIES {
        report.add(run(&database, policy).await);
    }
    report.assert_kept(name);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_where_rows_in_an_unknown_format_count_as_absent_they_are_overwritten() {
    let name = "mixed versions, where such rows count as absent";
    let Some(database) = database(name, Some(Fault::UnknownIsAbsent)).await else { return };
    run(&database, "refuse").await.assert_seen(name, "completed-version at server");
}
