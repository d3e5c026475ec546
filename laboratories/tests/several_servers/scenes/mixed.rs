//! Rows that a later release has written. A server that does not know their format answers 503, and leaves them as they
//! are.

use futures_util::future::join_all;
use testkit::Call;
use testkit::history::{ClientAnswer, History, Policy};

use crate::client::{Clients, SLOW, VISA};
use crate::database::{Database, Fault, System, over_each_database};
use crate::fleet::{Fleet, SERVERS};
use crate::report::Report;

const POLICIES: [&str; 3] = ["refuse", "rerun", "reconcile"];

/// A charge whose row a later release has written.
#[derive(Debug, Clone)]
struct Key {
    name: String,
    source: &'static str,
}

/// Returns a completed key and an interrupted one. Under `rerun` an interrupted run is a released one, and no byte of a
/// row's state says that it was released: there the second key comes only with a change of the kind or of the header.
fn keys(way: &str, policy: &str) -> Vec<Key> {
    let key = |state, source| Key { name: format!("{state}-{way}"), source };
    let mut keys = vec![key("completed", VISA)];
    if policy != "rerun" || matches!(way, "kind" | "header") {
        keys.push(key("interrupted", "tok_timeout"));
    }
    keys
}

async fn run(database: &Database, policy: &str) -> Report {
    let arguments = format!("--store {} --namespace {policy} --lease 12 --on-interrupted {policy}", database.url());
    let mut fleet = Fleet::start(|_| arguments.clone()).await;
    let (look, mut report) = (database.look().await, Report::default());
    let history = History::new(Policy::Refuse);
    let clients = Clients::new(&fleet.balancer, &history);

    // This release writes the rows first.
    let mut written = Vec::new();
    for (way, change) in look.later() {
        let keys = keys(way, policy);
        for key in &keys {
            fleet.balancer.send_to(0, &Call::charge_of(&key.name, key.source)).await.expect("the server answers");
        }
        look.write_anew(policy, change).await;
        written.extend(keys);
    }
    // Other charges are under way while their rows are rewritten.
    let mut under_way = Vec::new();
    for (way, change) in look.later() {
        let key = Key { name: format!("running-{way}"), source: SLOW };
        let (balancer, call) = (fleet.balancer.clone(), Call::charge_of(&key.name, key.source));
        under_way.push(tokio::spawn(async move { balancer.send_alone(0, &call).await }));
        fleet.server(0).charge_begun(SLOW, under_way.len()).await;
        look.write_anew(policy, change).await;
        written.push(key);
    }
    let before = look.written_anew(policy).await;
    report.expect(before.len() >= written.len(), || format!("{policy}: of {written:?} rows are gone"));
    let late: Vec<_> = join_all(under_way).await.into_iter().map(|ended| ended.expect("no client panics")).collect();
    let late = late.into_iter().map(|answer| answer.expect("the server answers").status.to_string());
    let late = late.collect::<Vec<_>>().join(", ");
    report.figure(format!("{policy}: rows {}, the runs that were under way {late}", before.len()));
    let after = look.written_anew(policy).await;
    report.expect(after == before, || format!("{policy}: the end of a run has overwritten a row"));
    let charged = fleet.effects().await;
    for number in 0..SERVERS {
        fleet.kill(number);
        fleet.start_again(number).await;
    }
    // The checker knows nothing of these rows: from here on no key of them has an outcome or an effect.
    for _ in 0..2 {
        let everywhere = written.iter().flat_map(|key| (0..SERVERS).map(move |number| (key, number)));
        let asked =
            everywhere.map(async |(key, number)| (key, number, clients.send_to(number, &key.name, key.source).await));
        for (key, number, told) in join_all(asked).await {
            let is_right = told == ClientAnswer::refused("store-unavailable");
            report.expect(is_right, || format!("{policy}: {} at server {number}: {told:?}", key.name));
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
    report.expect(look.written_anew(policy).await == before, || format!("{policy}: rows were overwritten"));
    let effects = fleet.effects().await;
    report.expect(effects == charged, || format!("{policy}: {effects:?} are charged after {charged:?}"));
    // The servers still serve the records of this release.
    clients.ask_all(SERVERS, "new").await;
    history.effect("new");
    report.judge(&clients);
    report
}

async fn a_row_in_an_unknown_format_is_answered_503_and_never_overwritten(system: System) {
    let name = &format!("mixed versions, {system}");
    let Some(database) = Database::start(system, name).await else { return };
    let mut report = Report::default();
    for policy in POLICIES {
        report.add(run(&database, policy).await);
    }
    report.assert_kept(name);
}

async fn control_where_rows_in_an_unknown_format_count_as_absent_they_are_overwritten(system: System) {
    let name = &format!("mixed versions, where such rows count as absent, {system}");
    let Some(database) = Database::broken(system, name, Fault::UnknownIsAbsent).await else { return };
    run(&database, "refuse").await.assert_seen(name, "completed-version at server");
}

over_each_database! {
    a_row_in_an_unknown_format_is_answered_503_and_never_overwritten
    control_where_rows_in_an_unknown_format_count_as_absent_they_are_overwritten
}
