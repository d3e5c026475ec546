//! `idem outbox`, over files and over PostgreSQL.

use http::Request;
use serde_json::Value;
use testkit::postgres::own_server;
use tower_idempotency_outbox::deadpool_postgres::{Manager, Pool, tokio_postgres::NoTls};
use tower_idempotency_outbox::{Action, Call, Outbox, PostgresOutbox, SledOutbox, State};

use crate::postgres::client;
use crate::program::{Said, idem, program, run};

/// A text that is in keys, paths, bodies and partition keys, and in no answer that was not asked for.
const CANARY: &str = "canary-5e7c";
const NAME: &str = "payments_outbox";

fn call(number: u32) -> Call {
    let request = Request::post(format!("https://api.example/{CANARY}/charges"))
        .header("idempotency-key", format!("{CANARY}-{number}"))
        .body(format!("amount=500&{CANARY}"));
    Call::new(request.unwrap()).unwrap().in_order_of(format!("{CANARY}-customer-{number}")).unwrap()
}

/// Three calls: the first waits, and the others are given up.
async fn fill(outbox: &impl Outbox) {
    for number in 1..=3 {
        outbox.put(&call(number)).await.unwrap();
        if number > 1 {
            let entry = outbox.get(call(number).key()).await.unwrap().unwrap();
            assert!(outbox.by("a relay").apply(&entry, Action::GiveUp).await.unwrap());
        }
    }
}

/// Runs a command over the outbox.
fn outbox(store: &str, command: &str, more: &[&str]) -> Said {
    idem(&[&["outbox", command, store], more, &["--outbox", NAME]].concat())
}

fn listed(store: &str, more: &[&str]) -> Vec<Value> {
    let said = outbox(store, "ls", &[more, &["--json"]].concat());
    assert_eq!(said.code, 0, "{said:?}");
    said.json()["calls"].as_array().unwrap().clone()
}

fn states(calls: &[Value]) -> Vec<&str> {
    calls.iter().map(|call| call["state"].as_str().unwrap()).collect()
}

fn text<'a>(call: &'a Value, name: &str) -> &'a str {
    call[name].as_str().unwrap()
}

/// Lists, shows and changes calls, and returns what was said.
fn every_command(store: &str) -> Vec<Said> {
    let calls = listed(store, &[]);
    assert_eq!(states(&calls), ["given_up", "given_up", "waiting"]);
    let [second, third, first] = [0, 1, 2].map(|at| (text(&calls[at], "position"), text(&calls[at], "fence")));
    let first_page = outbox(store, "ls", &["--limit", "1"]);
    let (after_second, after_third) = (format!("given_up:{}", second.0), format!("given-up:{}", third.0));
    assert!(first_page.last_line().ends_with(&format!("--after {after_second}")), "{first_page:?}");
    // It goes on in the state, and then in those after it.
    assert_eq!(listed(store, &["--after", &after_second]), calls[1..]);
    assert_eq!(listed(store, &["--after", &after_third, "--limit", "65535"]), calls[2..]);
    assert_eq!(listed(store, &["--state", "given-up", "--after", &after_second]), [calls[1].clone()]);
    let other = outbox(store, "ls", &["--state", "waiting", "--after", &after_second]);
    assert!(other.code == 2 && other.stderr.contains("--state given_up"), "{other:?}");
    for wrong in [["--limit", "0"], ["--after", "17"], ["--after", "lost:17"], ["--after", "waiting:x"]] {
        let refused = outbox(store, "ls", &wrong);
        assert!(refused.code == 2 && refused.stderr.contains(wrong[0]), "{refused:?}");
    }
    let unknown = outbox(store, "ls", &["--state", "lost"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("waiting, sending, delivered"), "{unknown:?}");

    let shown = outbox(store, "show", &[second.0]);
    for line in ["state          given_up", "destination    https://api.example", "given up by a relay"] {
        assert!(shown.code == 0 && shown.stdout.contains(line), "{shown:?}");
    }
    let by_key = run(program(&["outbox", "show", store, "-", "--outbox", NAME, "--json"]), &format!("{CANARY}-2\n"));
    assert_eq!(text(&by_key.json(), "position"), second.0);
    let missing = outbox(store, "show", &["4711"]);
    assert_eq!(missing.code, 1, "{missing:?}");

    let change = |command: &str, (position, fence): (&str, &str), more: &[&str]| {
        outbox(store, command, &[&[position, "--fence", fence], more].concat())
    };
    let unconfirmed = change("retry", second, &[]);
    assert!(unconfirmed.code == 2 && unconfirmed.stderr.contains("--yes"), "{unconfirmed:?}");
    let late = change("retry", (second.0, "99"), &["--yes"]);
    assert!(late.code == 1 && late.stdout.contains("it has changed since"), "{late:?}");
    let other_state = change("give-up", second, &["--yes"]);
    assert!(other_state.code == 1 && other_state.stdout.contains("it is given_up"), "{other_state:?}");
    let unsaid = change("resolve", second, &["--yes"]);
    assert!(unsaid.code == 2 && unsaid.stderr.contains("--not-done"), "{unsaid:?}");

    let retried = change("retry", second, &["--yes"]);
    let resolved = change("resolve", third, &["--not-done", "--yes"]);
    let given_up = change("give-up", first, &["--yes", "--actor", "bob"]);
    for (said, action, actor) in
        [(&retried, "retry", "alice"), (&resolved, "settle-not-done", "alice"), (&given_up, "give-up", "bob")]
    {
        assert_eq!((said.code, &*said.stdout), (0, "done\n"), "{said:?}");
        let audit = format!("actor=\"{actor}\" action=\"{action}\"");
        assert!(said.stderr.contains("tower_idempotency::audit") && said.stderr.contains(&audit), "{said:?}");
    }
    assert_eq!(states(&listed(store, &[])), ["given_up", "waiting"]);
    assert_eq!(states(&listed(store, &["--state", "refused"])), ["refused"]);
    let all_as_json = outbox(store, "ls", &["--json"]);
    let shown_again = outbox(store, "show", &[first.0, "--json"]);
    assert_eq!(text(&shown_again.json(), "reason"), "given up by bob");
    let asked_for = outbox(store, "show", &[first.0, "--request"]);
    for line in [format!("key            {CANARY}-1"), format!("partition key  {CANARY}-customer-1")] {
        assert!(asked_for.stdout.contains(&line) && !asked_for.stdout.contains("amount"), "{asked_for:?}");
    }
    let said = [first_page, unknown, shown, by_key, missing, unconfirmed, late, other_state, unsaid];
    said.into_iter().chain([retried, resolved, given_up, all_as_json, shown_again]).collect()
}

fn has_no_canary(said: &[Said]) {
    assert!(said.iter().all(|said| !said.all().contains(CANARY)), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_files_are_listed_and_settled_without_a_key_in_any_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let store = tower_idempotency::SledStore::open(path).unwrap();
    let filled = SledOutbox::new(&store, NAME).await.unwrap();
    fill(&filled).await;
    drop(store);
    filled.close().await.unwrap();
    let sled = format!("sled:{path}");
    has_no_canary(&every_command(&sled));
    // None is made, also where a tree of that name waits for the application's data; and another engine has none.
    let store = tower_idempotency::SledStore::open(path).unwrap();
    store.db().unwrap().open_tree("empty").unwrap();
    store.close().await.unwrap();
    for name in ["outbox", "empty"] {
        let none = idem(&["outbox", "ls", &sled, "--outbox", name]);
        assert!(none.code == 2 && none.stderr.contains(&format!("no outbox of the name {name}")), "{none:?}");
    }
    let store = tower_idempotency::SledStore::open(path).unwrap();
    assert!(store.db().unwrap().open_tree("empty").unwrap().is_empty());
    store.close().await.unwrap();
    let fjall = idem(&["outbox", "ls", "fjall:x"]);
    assert!(fjall.code == 2 && fjall.stderr.contains("PostgreSQL, or in a store of sled"), "{fjall:?}");
    let missing = idem(&["outbox", "ls", "sled:/nowhere"]);
    assert!(missing.code == 3 && missing.stderr.contains("there is no store"), "{missing:?}");
    let left = SledOutbox::new(&tower_idempotency::SledStore::open(path).unwrap(), NAME).await.unwrap();
    assert_eq!(left.get(call(3).key()).await.unwrap().unwrap().state, State::Refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_postgresql_are_listed_and_settled_without_a_key_in_any_line() {
    let Some(server) = own_server("an outbox over PostgreSQL", &[]) else { return };
    let manager = Manager::new(server.url().parse().unwrap(), NoTls);
    let filled = PostgresOutbox::new(Pool::builder(manager).build().unwrap(), NAME).unwrap();
    filled.migrate().await.unwrap();
    fill(&filled).await;
    // The rights that the guide names are enough.
    let rights = format!(
        "CREATE ROLE staff LOGIN; GRANT USAGE ON SCHEMA {NAME} TO staff; GRANT SELECT, UPDATE ON {NAME}.call TO staff; \
         GRANT SELECT ON {NAME}.clock TO staff"
    );
    client(&server).await.batch_execute(&rights).await.unwrap();
    has_no_canary(&every_command(&server.url().replace("postgres@", "staff@")));
    let missing = idem(&["outbox", "ls", &server.url()]);
    assert!(missing.code == 3 && missing.stderr.contains("\"outbox.call\" does not exist"), "{missing:?}");
    let wrong = idem(&["outbox", "ls", &server.url(), "--outbox", "no-name"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("lower-case letters"), "{wrong:?}");
}
