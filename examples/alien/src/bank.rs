//! The two servers' handler: it charges a card, in a ledger of its own.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use deadpool_postgres::tokio_postgres::NoTls;
use deadpool_postgres::{Manager, Pool};
use serde::{Deserialize, Serialize};
use tower_idempotency::store::{Abort, TransactionTree};
use tower_idempotency::{IdempotencyContext, MemoryStore, SledStore, sled};
use tower_idempotency_postgres::{PostgresBackend, PostgresStore};
use tower_idempotency_shared::SharedStoreBuilder;

/// What goes wrong in the bank itself.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A charge in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Charge {
    /// Its number in the ledger.
    pub(crate) id: u64,
    /// The order, as its key names it.
    pub(crate) order: String,
    pub(crate) amount: u32,
    /// Milliseconds since 1970.
    pub(crate) at: u64,
}

/// What a customer sends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) order: String,
    pub(crate) amount: u32,
}

/// Where a server has its ledger.
#[derive(Clone)]
pub(crate) enum Bank {
    Sled { store: SledStore, charges: sled::Tree },
    Memory { store: MemoryStore, charges: Arc<Mutex<Vec<Charge>>> },
    Postgres { store: PostgresStore, pool: Pool },
}

impl Bank {
    pub(crate) fn sled(directory: &Path) -> Result<Self, Failure> {
        let store = SledStore::open(directory)?;
        let charges = store.db()?.open_tree("charges")?;
        Ok(Self::Sled { store, charges })
    }

    pub(crate) fn memory() -> Self {
        Self::Memory { store: MemoryStore::new(), charges: Arc::default() }
    }

    /// `schema` has the tables of this run.
    pub(crate) async fn postgres(url: &str, schema: &str) -> Result<Self, Failure> {
        let backend = PostgresBackend::from_url(url)?.schema(schema)?;
        backend.migrate().await?;
        // A server that was killed is taken for dead after 8.5 s, not 42.5: customers are waiting.
        let builder = SharedStoreBuilder::default().lease(Duration::from_secs(6)).call_timeout(Duration::from_secs(1));
        let store = builder.open(backend.open().await?).await?;
        let pool = Pool::builder(Manager::new(url.parse()?, NoTls)).build()?;
        let table = format!(
            "CREATE TABLE IF NOT EXISTS {schema}.charge
                (id bigserial PRIMARY KEY, key text, amount bigint, at bigint); SET search_path = {schema}"
        );
        // Servers that start together may both find that there is none.
        let _ = pool.get().await?.batch_execute(&table).await;
        Ok(Self::Postgres { store, pool })
    }

    /// Charges an order. With a context, the charge and the record of its answer are one transaction, where the
    /// database has any.
    pub(crate) async fn charge(
        &self,
        order: Order,
        context: Option<&IdempotencyContext>,
        schema: &str,
    ) -> Result<http::Response<Bytes>, Failure> {
        // The card network takes its time.
        tokio::time::sleep(Duration::from_millis(10)).await;
        match self {
            Self::Sled { store, charges } => {
                let make = move |[charges]: [TransactionTree<'_>; 1]| append(&charges, &order);
                Ok(match context {
                    Some(context) => store.complete_in(context, [charges], make).await?.answer(),
                    None => store.transaction([charges], make).await?,
                })
            }
            Self::Memory { charges, .. } => {
                let mut charges = charges.lock().unwrap_or_else(PoisonError::into_inner);
                let charge =
                    Charge { id: charges.len() as u64 + 1, order: order.order, amount: order.amount, at: now() };
                charges.push(charge.clone());
                Ok(answer(&charge))
            }
            Self::Postgres { store, pool } => {
                let mut client = pool.get().await?;
                let transaction = client.transaction().await?;
                let (at, amount) = (now(), i64::from(order.amount));
                let insert = format!("INSERT INTO {schema}.charge (key, amount, at) VALUES ($1, $2, $3) RETURNING id");
                let row = transaction.query_one(&insert, &[&order.order, &amount, &(at as i64)]).await?;
                let id = u64::try_from(row.get::<_, i64>(0))?;
                let answer = answer(&Charge { id, order: order.order, amount: order.amount, at });
                if let Some(context) = context {
                    let _ = store.complete_in(context, &transaction, answer.clone()).await?;
                }
                transaction.commit().await?;
                Ok(answer)
            }
        }
    }

    /// The whole ledger.
    pub(crate) async fn charges(&self, schema: &str) -> Result<Vec<Charge>, Failure> {
        match self {
            Self::Sled { charges, .. } => {
                charges.scan_prefix(b"c").values().map(|value| Ok(serde_json::from_slice(&value?)?)).collect()
            }
            Self::Memory { charges, .. } => Ok(charges.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            Self::Postgres { pool, .. } => {
                let select = format!("SELECT id, key, amount, at FROM {schema}.charge ORDER BY id");
                let rows = pool.get().await?.query(&select, &[]).await?;
                let charge = |row: &deadpool_postgres::tokio_postgres::Row| {
                    let number = |column| u64::try_from(row.get::<_, i64>(column)).unwrap_or_default();
                    Charge { id: number(0), order: row.get(1), amount: number(2) as u32, at: number(3) }
                };
                Ok(rows.iter().map(charge).collect())
            }
        }
    }
}

fn append(charges: &TransactionTree<'_>, order: &Order) -> Result<http::Response<Bytes>, Abort<Infallible>> {
    let last = charges.get(b"n")?.and_then(|value| value.as_ref().try_into().map(u64::from_be_bytes).ok());
    let id = last.unwrap_or(0) + 1;
    let charge = Charge { id, order: order.order.clone(), amount: order.amount, at: now() };
    charges.insert(b"n", &id.to_be_bytes())?;
    charges.insert([b"c", &id.to_be_bytes()[..]].concat(), &*answer(&charge).into_body())?;
    Ok(answer(&charge))
}

fn answer(charge: &Charge) -> http::Response<Bytes> {
    let json = serde_json::to_vec(charge).unwrap_or_default();
    let mut answer = http::Response::new(Bytes::from(json));
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    answer
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
