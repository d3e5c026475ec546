//! Rows that a later release has written: a server that does not know their format answers 503, and leaves them as they
//! are.

use futures_util::future::join_all;
use testkit::Call;
use testkit::history::{History, Policy, Told};
use tower_idempotency_postgres::tokio_postgres::Client;

use crate::client::{Clients, SLOW, VISA, charge};
use crate::database::{Fault, Server, broken_database, database, rows, sql};
use crate::fleet::{Fleet, SERVERS};
use crate::report::Report;

/// How a later release might have left a row: its bytes in another version, whatever follows, or of a kind unheard of.
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

/// One that was completed, and one that was interrupted, which is another word for released under `rerun`. That a row
/// was released is in no byte of its state.
fn keys(way: &str, policy: &str) -> Vec<Key> {
    let key = |state, source| Key { name: format!("{state}-{way}"), source };
    let mut keys = vec![key("completed", VISA)];
    if policy != "rerun" || way == "kind" {
        keys.push(key("interrupted", "tok_timeout"));
    }
    keys
}

async fn run(database: &Server, policy: &str) -> Report {
    let arguments = format!("--store {} --namespace {policy} --lease 12 --on-interrupted {policy}", database.url());
    let mut fleet = Fleet::start(|_| arguments.clone()).await;
    let (sql, mut report) = (sql(database).await, Report::default());
    let history = History::new(Policy::Refuse);
    let clients = Clients::new(&fleet.balancer, &history);

    // This release has written them first.
    let mut written = Vec::new();
    for (way, change) in WRITTEN {
        let keys = keys(way, policy);
        for key in &keys {
            fleet.balancer.send_to(0, &charge(&key.name, key.source)).await.expect("the server answers");
        }
        write_anew(&sql, policy, change).await;
        written.extend(keys);
    }
    // One is under way while its row is written anew.
    let under_way = tokio::spawn({
        let balancer = fleet.balancer.clone();
        async move { balancer.send_alone(0, &charge("running", SLOW)).await }
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
    // Nothing of it is known to the checker: from here on none has an outcome, and none an effect.
    for _ in 0..2 {
        for key in &written {
            let told = join_all((0..SERVERS).map(|number| clients.send_to(number, &key.name, key.source))).await;
            for (number, told) in told.into_iter().enumerate() {
                let is_right = told == Told::refused("store-unavailable");
                report.expect(is_right, || format!("{policy}: {} at server {number}: {told:?}", key.name));
            }
        }
    }
    // Nor does an operator get at them.
    for number in 0..SERVERS {
        let listed = fleet.server(number).interrupted().await;
        report.expect(listed.is_empty(), || format!("{policy}: listed are {listed:?}"));
        let forgets = Call::post("/admin/interrupted/forget?status=504", "");
        fleet.server(number).send(&forgets).await;
    }
    report.expect(rows(&sql, policy).await == before, || format!("{policy}: rows were overwritten"));
    let effects = fleet.effects().await;
    report.expect(effects == charged, || format!("{policy}: {effects:?} are charged after {charged:?}"));
    // The records of this release are served all the same.
    clients.ask_all(SERVERS, "new").await;
    history.effect("new");
    report.judge(&clients);
    report
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
    let Some(database) = database(name, &[]).await else { return };
    let mut report = Report::default();
    for policy in POLICIES {
        report.add(run(&database, policy).await);
    }
    report.assert_kept(name);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_where_rows_in_an_unknown_format_count_as_absent_they_are_overwritten() {
    let name = "mixed versions, where such rows count as absent";
    let Some(database) = broken_database(name, &[], Fault::UnknownIsAbsent).await else { return };
    run(&database, "refuse").await.assert_seen(name, "completed-version at server");
}
