//! A connection to the server on which puts are held back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::proxy::{Fate, Pass, Way};
use tokio::sync::watch;

use crate::lab::address;

/// A proxy between a backend and the server. It ends when it is dropped.
///
/// It recognises a put by the name of its function, which only a backend [`behind_pooler`] sends with every call.
///
/// [`behind_pooler`]: tower_idempotency_postgres::PostgresBackendBuilder::behind_pooler
#[derive(Debug)]
pub(crate) struct Proxy {
    way: testkit::proxy::Proxy,
    is_held: watch::Sender<bool>,
    waiting: Arc<AtomicUsize>,
}

/// A connection on which puts wait while they are held back.
struct Holding {
    is_held: watch::Receiver<bool>,
    waiting: Arc<AtomicUsize>,
}

impl Fate for Holding {
    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        if way == Way::Request && bytes.windows(4).any(|word| word == b"put_") {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            // An error means that the proxy is gone.
            let _ = self.is_held.clone().wait_for(|is_held| !is_held).await;
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        Pass::On
    }
}

impl Proxy {
    /// A proxy to the server of `url`.
    pub(crate) async fn to(url: &str) -> Self {
        let (is_held, held) = watch::channel(false);
        let waiting: Arc<AtomicUsize> = Arc::default();
        let waits = Arc::clone(&waiting);
        let fate = move |_| Some(Holding { is_held: held.clone(), waiting: Arc::clone(&waits) });
        Self { way: testkit::proxy::Proxy::to(address(url), fate).await, is_held, waiting }
    }

    pub(crate) fn url(&self) -> String {
        self.way.url()
    }

    /// Holds back all puts from now on, until the returned function is called.
    pub(crate) fn hold(&self) -> impl FnOnce() + Send + use<> {
        let is_held = self.is_held.clone();
        is_held.send_replace(true);
        move || {
            is_held.send_replace(false);
        }
    }

    /// Returns the number of puts that are held back.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}
