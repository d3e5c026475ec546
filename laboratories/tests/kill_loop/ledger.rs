//! The server's ledger: the charges that were made. It is append-only and synced, so that no charge ever goes from it.

use std::collections::HashSet;

use serde::Deserialize;
use testkit::payment_server::Server;

#[derive(Debug, Deserialize)]
struct List {
    has_more: bool,
    data: Vec<Charge>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Charge {
    pub(crate) id: String,
    /// The key.
    pub(crate) description: String,
}

/// The part of the ledger that was read so far.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    ids: HashSet<String>,
    unread: usize,
}

impl Ledger {
    pub(crate) fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Counts requests that may each have made a charge.
    pub(crate) fn expect(&mut self, requests: usize) {
        self.unread += requests;
    }

    /// Reads the charges made since the last time. No run may be under way: charges are listed in the order in which
    /// they began.
    pub(crate) async fn new_charges(&mut self, server: &Server) -> Vec<Charge> {
        let mut limit = self.unread + 100;
        let list = loop {
            let list = read(server, limit).await;
            // The newest charges come first; all charges after a known one are known.
            let reaches = list.data.last().is_none_or(|last| self.ids.contains(&last.id));
            if reaches || !list.has_more {
                break list;
            }
            limit *= 4;
        };
        self.unread = 0;
        list.data.into_iter().filter(|charge| self.ids.insert(charge.id.clone())).collect()
    }

    /// Reads the whole ledger, and returns the charges that were missed before, and the ids of those that have gone
    /// from it.
    pub(crate) async fn whole(&self, server: &Server) -> (Vec<Charge>, Vec<String>) {
        let list = read(server, 1_000_000).await;
        assert!(!list.has_more, "too many charges for one list");
        let there: HashSet<_> = list.data.iter().map(|charge| charge.id.clone()).collect();
        let gone = self.ids.difference(&there).cloned().collect();
        (list.data.into_iter().filter(|charge| !self.ids.contains(&charge.id)).collect(), gone)
    }
}

async fn read(server: &Server, limit: usize) -> List {
    let answer = server.get(&format!("/v1/charges?limit={limit}")).await;
    serde_json::from_slice(&answer.body).expect("a list of charges")
}

/// Returns the charges that a log names: `ch_` and 32 hex digits.
pub(crate) fn named(log: &str) -> impl Iterator<Item = String> {
    log.match_indices("ch_").filter_map(|(at, _)| {
        let id = log.get(at..at + 35)?;
        id[3..].bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| id.to_owned())
    })
}
