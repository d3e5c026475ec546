//! The calls of an outbox: counted, listed, and settled by an operator who may. Each over sled and over PostgreSQL.

#![allow(clippy::future_not_send, reason = "a test stays on its thread")]

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::BoxFuture;
use http::Request;
use tempfile::TempDir;
use testkit::log::Log;
use testkit::postgres::shared_server;
use testkit::process::until;
use tower_idempotency::{MemoryStore, SledStore};
use tower_idempotency_admin::{Access, AdminPage, Permission};
use tower_idempotency_outbox::deadpool_postgres::tokio_postgres::NoTls;
use tower_idempotency_outbox::deadpool_postgres::{Manager, Pool};
use tower_idempotency_outbox::{Action, Call, Entry, Outbox, PostgresOutbox, SledOutbox, State};

use crate::desk::{Desk, authorize, layer};
use crate::document::{Form, forms};

/// A text that is in each key, path, partition key and body, and on no page.
const CANARY: &str = "canary-5e7c";

/// Makes a test over each database of one that is written for any.
macro_rules! over_both {
    ($(#[$test:meta] $name:ident),* $(,)?) => {
        mod sled {
            $(#[$test]
            async fn $name() {
                super::$name::<super::Sled>().await;
            })*
        }

        mod postgres {
            $(#[$test]
            async fn $name() {
                super::$name::<super::Postgres>().await;
            })*
        }
    };
}

over_both!(
    // Its log is that of one thread.
    #[tokio::test]
    calls_are_counted_and_an_operator_settles_them_after_reading_what_it_leads_to,
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    more_calls_than_a_page_shows_have_a_link_and_so_have_refused_ones,
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    a_call_that_was_tried_and_given_up_since_is_not_settled_by_what_was_seen_before,
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    who_may_only_read_sees_calls_and_changes_none,
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    an_outbox_that_fails_leaves_the_rest_of_the_page,
);

/// A database with an outbox.
trait Database: Sized {
    type Outbox: Outbox;

    /// One whose outbox is empty; `None` if there is no server here.
    async fn new() -> Option<Self>;

    fn outbox(&self) -> &Self::Outbox;

    /// Closes it. The outbox fails from then on.
    fn close(&self) -> BoxFuture<'static, ()>;
}

struct Sled {
    outbox: SledOutbox,
    store: SledStore,
    _directory: TempDir,
}

impl Database for Sled {
    type Outbox = SledOutbox;

    async fn new() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path()).unwrap();
        let outbox = SledOutbox::new(&store, "outbox").await.unwrap();
        Some(Self { outbox, store, _directory: directory })
    }

    fn outbox(&self) -> &SledOutbox {
        &self.outbox
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        // It waits for the handle that the outbox has.
        let store = self.store.clone();
        Box::pin(async move { drop(store.close().await) })
    }
}

struct Postgres {
    outbox: PostgresOutbox,
    pool: Pool,
}

impl Database for Postgres {
    type Outbox = PostgresOutbox;

    async fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = shared_server("the calls of an outbox in PostgreSQL")?;
        let pool = Pool::builder(Manager::new(server.url().parse().unwrap(), NoTls)).build().unwrap();
        let schema = format!("outbox_{}", NUMBER.fetch_add(1, Ordering::SeqCst));
        let outbox = PostgresOutbox::new(pool.clone(), &schema).unwrap();
        outbox.migrate().await.unwrap();
        Some(Self { outbox, pool })
    }

    fn outbox(&self) -> &PostgresOutbox {
        &self.outbox
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let pool = self.pool.clone();
        Box::pin(async move { pool.close() })
    }
}

struct Home<D> {
    desk: Desk,
    database: D,
}

impl<D: Database> Home<D> {
    /// Three calls: the first waits, and the others are given up.
    async fn new(access: Access) -> Option<Self> {
        let database = D::new().await?;
        let outbox = database.outbox();
        for number in 1..=3 {
            outbox.put(&call(number)).await.unwrap();
            if number > 1 {
                let entry = outbox.get(call(number).key()).await.unwrap().unwrap();
                assert!(outbox.by("a relay").apply(&entry, Action::GiveUp).await.unwrap());
            }
        }
        let layer = layer(MemoryStore::new());
        let page = AdminPage::new(layer.operations(), move |parts| authorize(parts, access));
        let desk = Desk::of(layer, page.outbox("payments", outbox.clone()));
        Some(Self { desk, database })
    }

    fn outbox(&self) -> &D::Outbox {
        self.database.outbox()
    }

    async fn entry(&self, number: u32) -> Entry {
        self.outbox().get(call(number).key()).await.unwrap().unwrap()
    }

    /// The form of a page with the buttons of this call.
    async fn form(&self, page: &str, number: u32) -> Form {
        let (page, position) = (self.desk.get(page).await, self.entry(number).await.position.to_string());
        let found = forms(page.text()).into_iter().find(|form| form.has("position", &position));
        found.unwrap_or_else(|| panic!("{}", page.text()))
    }
}

fn call(number: u32) -> Call {
    let request = Request::post(format!("https://api.example/{CANARY}/charges"))
        .header("idempotency-key", format!("{CANARY}-{number}"))
        .body(format!("amount=500&{CANARY}"));
    Call::new(request.unwrap()).unwrap().in_order_of(format!("{CANARY}-customer-{number}")).unwrap()
}

async fn calls_are_counted_and_an_operator_settles_them_after_reading_what_it_leads_to<D: Database>() {
    let log = Log::begin(tracing::Level::TRACE);
    let Some(home) = Home::<D>::new(Access::ALL).await else { return };
    let desk = &home.desk;
    let first = desk.get("").await;
    for text in ["Outbox: payments", "given up", "waiting", "https://api.example", "given up by a relay"] {
        assert!(first.text().contains(text), "{text}: {}", first.text());
    }
    let mut shown = first.text().to_owned();
    // Each is shown once, also where its state is asked for.
    assert_eq!(desk.get("?calls=given_up").await.text().matches("given up by a relay").count(), 2);
    // Those that wait are shown where they are asked for.
    assert!(!first.text().contains("Give it up") && desk.get("?calls=waiting").await.text().contains("Give it up"));
    for (number, page, action, consequence, becomes, reason, given_up_after) in [
        (2, "", "retry", "So far, it has not taken place.", State::Waiting, "retried by alice", Some(1)),
        (3, "", "settle-not-done", "counts as refused", State::Refused, "settled by alice", None),
        (
            1,
            "?calls=waiting",
            "give-up",
            "No relay sends the call any more",
            State::GivenUp,
            "given up by alice",
            Some(1),
        ),
        (1, "", "settle-done", "counts as delivered", State::Delivered, "settled by alice", None),
    ] {
        let form = home.form(page, number).await;
        let review = desk.submit(&form, &[("action", action)]).await;
        assert!(review.status == 200 && review.text().contains(consequence), "{action}: {}", review.text());
        let confirm = forms(review.text()).into_iter().find(|form| form.has("do", "change-call")).unwrap();
        assert_eq!(home.entry(number).await.state, state_before(action), "nothing was changed so far");
        let result = desk.submit(&confirm, &[]).await;
        assert!(result.status == 200 && result.text().contains("Done."), "{action}: {}", result.text());
        let entry = home.entry(number).await;
        assert_eq!((entry.state, entry.reason.as_deref()), (becomes, Some(reason)), "{action}");
        // Sent again, the form does nothing.
        for stale in [&form.with("action", action), &confirm] {
            let again = desk.submit(stale, &[]).await;
            assert!(again.text().contains("it has changed since you looked"), "{action}: {}", again.text());
        }
        assert_eq!(home.entry(number).await.fence(), entry.fence(), "{action}");
        // The counts are those after the change.
        let counted = desk.get("").await;
        let given_up = counted.text().split_once(">given up</a>").map(|(_, row)| row.split("</tr>").next().unwrap());
        let left = given_up.map(|row| row.split("data-label=\"Calls\">").nth(1).unwrap().split('<').next().unwrap());
        assert_eq!(left.map(|left| left.parse().unwrap()), given_up_after, "{action}: {}", counted.text());
        shown.push_str(review.text());
        shown.push_str(result.text());
    }
    let audit = log.lines().concat();
    assert_eq!(audit.matches("actor=\"alice\" action=").count(), 4);
    assert!(!shown.contains(CANARY) && !audit.contains(CANARY));
}

fn state_before(action: &str) -> State {
    if action == "give-up" { State::Waiting } else { State::GivenUp }
}

async fn more_calls_than_a_page_shows_have_a_link_and_so_have_refused_ones<D: Database>() {
    let Some(home) = Home::<D>::new(Access::ALL).await else { return };
    let mut last = 0;
    for number in 4..=102 {
        home.outbox().put(&call(number)).await.unwrap();
        last = home.entry(number).await.position;
        let given_up = home.outbox().by("a relay").apply(&home.entry(number).await, Action::GiveUp).await;
        assert!(given_up.unwrap());
    }
    let hidden = home.entry(102).await.position;
    let is_shown = |page: &str| page.contains(&format!("<code>{hidden}</code>"));
    let first = home.desk.get("").await;
    assert!(last == hidden && !is_shown(first.text()), "{}", first.text());
    let links: Vec<_> = first.text().split("href=\"").filter_map(|rest| rest.split('"').next()).collect();
    let link = |what: &str| links.iter().find(|link| link.contains(what)).unwrap().replace("&amp;", "&");
    let more = home.desk.get(&link("&amp;calls_after=")).await;
    assert!(more.status == 200 && is_shown(more.text()) && !more.text().contains("complaint"), "{}", more.text());
    assert!(!more.text().contains("calls_after="), "there are no more");
    assert!(!is_shown(home.desk.get(&link("&amp;calls_after=").replace("outbox=0", "outbox=1")).await.text()));
    let entry = home.entry(2).await;
    assert!(home.outbox().by("bob").apply(&entry, Action::SettleAsNotDone).await.unwrap());
    let refused = home.desk.get(&link("calls=refused")).await;
    assert!(refused.text().contains(&format!("<code>{}</code>", entry.position)), "{}", refused.text());
}

async fn a_call_that_was_tried_and_given_up_since_is_not_settled_by_what_was_seen_before<D: Database>() {
    let Some(home) = Home::<D>::new(Access::ALL).await else { return };
    let form = home.form("", 2).await.with("action", "settle-not-done").with("do", "change-call");
    let bob = home.outbox().by("bob");
    assert!(
        bob.apply(&home.entry(2).await, Action::Retry).await.unwrap()
            && bob.apply(&home.entry(2).await, Action::GiveUp).await.unwrap()
    );
    let stale = home.desk.submit(&form, &[]).await;
    assert!(stale.text().contains("it has changed since you looked"), "{}", stale.text());
    assert_eq!(home.entry(2).await.state, State::GivenUp);
}

async fn who_may_only_read_sees_calls_and_changes_none<D: Database>() {
    let Some(home) = Home::<D>::new(Access::ALL).await else { return };
    let form = home.form("", 2).await.with("action", "retry");
    let Some(reader) = Home::<D>::new(Access::READ.and(Permission::Release)).await else { return };
    let page = reader.desk.get("").await;
    assert!(page.text().contains("given up by a relay") && !page.text().contains("Send it again"));
    for sent in [form.clone(), form.clone().with("do", "change-call")] {
        let refused = reader.desk.submit(&sent, &[]).await;
        assert!(refused.status == 403 && refused.text().contains("outbox"), "{}", refused.text());
    }
    for (name, value) in [("outbox", "1"), ("position", "x"), ("fence", ""), ("action", "x"), ("action", "give_up")] {
        let wrong = home.desk.submit(&form.clone().with(name, value), &[]).await;
        assert_eq!(wrong.status, 400, "{name}: {}", wrong.text());
    }
    assert_eq!(home.entry(2).await.state, State::GivenUp);
}

async fn an_outbox_that_fails_leaves_the_rest_of_the_page<D: Database>() {
    let Some(home) = Home::<D>::new(Access::ALL).await else { return };
    let form = home.form("", 2).await.with("action", "retry").with("do", "change-call");
    let closing = tokio::spawn(home.database.close());
    let fails = async || home.desk.get("").await.text().contains("The outbox does not answer this");
    until("the outbox fails", fails).await;
    let page = home.desk.get("").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Operations that are not over"), "{}", page.text());
    let change = home.desk.submit(&form, &[]).await;
    assert!(change.status == 503 && change.text().contains("The outbox does not answer this"), "{}", change.text());
    closing.abort();
}
