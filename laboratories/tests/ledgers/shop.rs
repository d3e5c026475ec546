//! A shop: it writes orders, each with a call for its charge in the same transaction, and relays the calls.

use std::fmt;
use std::path::PathBuf;
use std::process::exit;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use retry_policies::policies::ExponentialBackoff;
use testkit::dice::{below, number, time_below};
use testkit::process::until;
use tower::ServiceExt as _;
use tower_idempotency::SledStore;
use tower_idempotency_client::{Key, KeyedRetryLayer};
use tower_idempotency_outbox::deadpool_postgres::tokio_postgres::NoTls;
use tower_idempotency_outbox::deadpool_postgres::{Manager, Pool};
use tower_idempotency_outbox::{Call, Outbox, PostgresOutbox, PutError, Relay, SledOutbox, State};

/// What a shop's process is given in its environment: its database, its number, how many shops and calls there are, and
/// where charges are made.
pub(crate) const PLACE: &str = "LEDGERS_PLACE";
pub(crate) const SHOP: &str = "LEDGERS_SHOP";
pub(crate) const SHOPS: &str = "LEDGERS_SHOPS";
pub(crate) const CALLS: &str = "CALLS";
pub(crate) const CHARGES: &str = "LEDGERS_CHARGES";
/// Set in the control: each attempt gets a new key.
pub(crate) const NEW_KEYS: &str = "LEDGERS_NEW_KEYS";

/// The schema, or the tree, of the outbox.
const OUTBOX: &str = "shop_outbox";

/// Where a shop's ledger and its outbox are.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Sled(PathBuf),
    Postgres(String),
}

/// As its process is given it.
impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sled(directory) => write!(formatter, "{}", directory.display()),
            Self::Postgres(url) => formatter.write_str(url),
        }
    }
}

/// An order in a shop's ledger, and what has become of its call.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) number: u32,
    pub(crate) state: &'static str,
    pub(crate) tries: u32,
    /// Why the call is in this state, if it did not end in a first try.
    pub(crate) reason: Option<String>,
    pub(crate) answer: Option<Bytes>,
    /// Whether the network has cut the answer twice.
    pub(crate) is_cut: bool,
}

/// The amount of an order: no two neighbours have the same.
pub(crate) fn amount(number: u32) -> u32 {
    100 + number % 977
}

/// The customer of an order whose charges are wanted in order: of every second one.
pub(crate) fn customer(number: u32) -> Option<u32> {
    number.is_multiple_of(2).then_some(number % 14)
}

fn key(number: u32) -> Key {
    Key::new(format!("order-{number}")).unwrap()
}

fn call(number: u32) -> Call {
    let body = format!("amount={}&currency=eur&source=tok_visa&description=order-{number}", amount(number));
    let request = Request::post(std::env::var(CHARGES).unwrap())
        .header("content-type", "application/x-www-form-urlencoded")
        .extension(key(number));
    let call = Call::new(request.body(body).unwrap()).unwrap();
    match customer(number) {
        Some(customer) => call.in_order_of(format!("customer-{customer}")).unwrap(),
        None => call,
    }
}

impl Place {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sled(_) => "sled",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    /// Makes what the shops share.
    pub(crate) async fn prepare(&self) {
        if let Self::Postgres(url) = self {
            outbox_of(url).migrate().await.unwrap();
            let table = "CREATE TABLE orders (number bigint PRIMARY KEY)";
            pool(url).get().await.unwrap().batch_execute(table).await.unwrap();
        }
    }

    /// Reads the ledger when all shops have ended.
    pub(crate) async fn ledger(&self) -> Vec<Order> {
        match self {
            Self::Sled(directory) => {
                let store = SledStore::open(directory).unwrap();
                let numbers = numbers(&store.db().unwrap().open_tree("orders").unwrap());
                orders(&SledOutbox::new(&store, OUTBOX).await.unwrap(), numbers).await
            }
            Self::Postgres(url) => {
                let rows = pool(url).get().await.unwrap().query("SELECT number FROM orders", &[]).await.unwrap();
                let numbers = rows.iter().map(|row| u32::try_from(row.get::<_, i64>(0)).unwrap()).collect();
                orders(&outbox_of(url), numbers).await
            }
        }
    }
}

async fn orders(outbox: &impl Outbox, numbers: Vec<u32>) -> Vec<Order> {
    let mut orders = Vec::new();
    for number in numbers {
        let entry = outbox.get(&key(number)).await.unwrap();
        let (state, tries) = entry.as_ref().map_or(("missing", 0), |entry| (entry.state.as_str(), entry.tries));
        let reason = entry.as_ref().and_then(|entry| entry.reason.clone());
        let answer = entry.and_then(|entry| entry.answer);
        let is_cut = answer.as_ref().is_some_and(|answer| answer.is_cut);
        orders.push(Order { number, state, tries, reason, answer: answer.map(|answer| answer.body), is_cut });
    }
    orders
}

/// Does the work of a shop, if this process is to, and ends it.
pub(crate) async fn run_if_child() {
    let Some(place) = std::env::var(PLACE).ok() else { return };
    // All orders of a customer are one shop's, which writes them in their order.
    let missing = |done: &[u32]| -> Vec<u32> {
        let (shop, shops) = (number::<u32>(SHOP).unwrap(), number::<u32>(SHOPS).unwrap());
        let own = (0..number::<u32>(CALLS).unwrap()).filter(|number| number % 14 / 2 % shops == shop);
        own.filter(|number| !done.contains(number)).collect()
    };
    if place.starts_with("postgres:") {
        let (pool, outbox) = (pool(&place), outbox_of(&place));
        let client = pool.get().await.unwrap();
        let rows = client.query("SELECT number FROM orders", &[]).await.unwrap();
        let done: Vec<_> = rows.iter().map(|row| u32::try_from(row.get::<_, i64>(0)).unwrap()).collect();
        drop(client);
        let put = async |number: u32| {
            let mut client = pool.get().await.unwrap();
            let transaction = client.transaction().await.unwrap();
            // The last commit of a shop that was killed may come after this one has looked. The call is put in once,
            // too.
            let insert = "INSERT INTO orders VALUES ($1) ON CONFLICT DO NOTHING";
            transaction.execute(insert, &[&i64::from(number)]).await.unwrap();
            outbox.put_in(&transaction, &call(number)).await.unwrap();
            transaction.commit().await.unwrap();
        };
        trade(&outbox, missing(&done), put).await;
    } else {
        // The last shop may still be about to end.
        let store = SledStore::open(&place).unwrap();
        let orders = store.db().unwrap().open_tree("orders").unwrap();
        let outbox = SledOutbox::new(&store, OUTBOX).await.unwrap();
        let put = async |number: u32| {
            let (put, call) = (outbox.clone(), call(number));
            let order = store.transaction([&orders, outbox.tree()], move |[orders, calls]| {
                orders.insert(&number.to_be_bytes(), b"")?;
                put.put_in::<PutError>(&calls, &call)
            });
            order.await.unwrap();
        };
        trade(&outbox, missing(&numbers(&orders)), put).await;
    }
    exit(0);
}

/// Puts orders in, and relays calls meanwhile, until all have an end.
async fn trade(outbox: &impl Outbox, missing: Vec<u32>, put: impl AsyncFn(u32)) {
    let orders = async {
        for number in missing {
            put(number).await;
            if below(20) == 0 {
                tokio::time::sleep(time_below(Duration::from_millis(50))).await;
            }
        }
        // Each is looked at until it has an end, which is for good. A call that is sent may wait again.
        let mut ended = 0;
        until("all calls have an end", async || {
            while ended < number::<u32>(CALLS).unwrap() {
                let entry = outbox.get(&key(ended)).await.unwrap();
                if entry.is_none_or(|entry| matches!(entry.state, State::Waiting | State::Sending)) {
                    return false;
                }
                ended += 1;
            }
            true
        })
        .await;
    };
    let bounds = (Duration::from_millis(5), Duration::from_millis(100));
    let backoff = || ExponentialBackoff::builder().retry_bounds(bounds.0, bounds.1);
    let is_control = std::env::var_os(NEW_KEYS).is_some();
    // A connection for each attempt.
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http::<Full<Bytes>>();
    let client = client.map_request(move |mut request: Request<Full<Bytes>>| {
        if is_control {
            let key = HeaderValue::from_str(Key::random().as_str()).unwrap();
            request.headers_mut().insert("idempotency-key", key);
        }
        request
    });
    Relay::new(outbox.clone(), client)
        .layer(KeyedRetryLayer::new().backoff(backoff().build_with_max_retries(1)))
        .poll_every(Duration::from_millis(20))
        .backoff(backoff().build_with_max_retries(u32::MAX))
        // After a kill, a call waits for three times as long.
        .try_for(Duration::from_secs(1))
        .run(orders)
        .await;
}

fn numbers(orders: &sled::Tree) -> Vec<u32> {
    orders.iter().keys().map(|key| u32::from_be_bytes(key.unwrap().as_ref().try_into().unwrap())).collect()
}

fn pool(url: &str) -> Pool {
    Pool::builder(Manager::new(url.parse().unwrap(), NoTls)).build().unwrap()
}

fn outbox_of(url: &str) -> PostgresOutbox {
    PostgresOutbox::new(pool(url), OUTBOX).unwrap()
}
