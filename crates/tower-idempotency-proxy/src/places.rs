//! How much is under way at a time, and a share of it for each client: connections, of which each takes a file, or
//! parts of the memory for answers (`ROOM` of `proxy.rs`), of which one answer may take many.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most places, however many files there may be.
const MOST: usize = 8_192;
/// The files that are left: for the store (fjall's takes up to 256), the second port, the connections that are kept for
/// the next request, and what else the process opens.
const RESERVE: usize = 448;
/// The least that a proxy has, however few files there may be.
const LEAST: usize = 8;
/// Fewer places than this are named when the proxy starts. The default limit of many systems, 1,024 files, gives 288.
const FEW: usize = 256;
/// Where the limit of open files can't be read, as on some systems.
const UNKNOWN: usize = 1_024;

/// Places of one kind: each takes a file.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    most: usize,
    taken: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_client: HashMap<Option<IpAddr>, usize>,
}

/// Places that are taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    of: Places,
    client: Option<IpAddr>,
    count: usize,
}

impl Places {
    /// A half of the files that the process may open, less the reserve: the other half is for the other side's
    /// connections. The soft limit of open files is raised to the hard one.
    pub(crate) fn of_process() -> Self {
        Self::with(of_files(files()))
    }

    /// Logs a WARN if there are few.
    pub(crate) fn warn_if_few(&self) {
        if self.most < FEW {
            let (connections, of_one_client) = (self.most, self.share());
            tracing::warn!(
                connections,
                of_one_client,
                "the process may open few files, so that it takes few connections; raise the limit (ulimit -n)"
            );
        }
    }

    pub(crate) fn with(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// Takes a place for a client, which has half of them at the most, if its address is known.
    pub(crate) fn take(&self, client: Option<IpAddr>) -> Option<Place> {
        self.take_many(client, 1)
    }

    /// Takes so many, or none.
    pub(crate) fn take_many(&self, client: Option<IpAddr>, count: usize) -> Option<Place> {
        let client = client.map(network);
        let mut taken = self.lock();
        let of_client = taken.by_client.get(&client).copied().unwrap_or_default();
        if taken.all + count > self.most || client.is_some() && of_client + count > self.share() {
            return None;
        }
        taken.all += count;
        *taken.by_client.entry(client).or_default() += count;
        Some(Place { of: self.clone(), client, count })
    }

    /// The most places of one client.
    pub(crate) fn share(&self) -> usize {
        self.most.div_ceil(2)
    }

    /// Whether all are taken.
    pub(crate) fn are_taken(&self) -> bool {
        self.lock().all >= self.most
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.lock();
        taken.all -= self.count;
        if let Some(of_client) = taken.by_client.get_mut(&self.client) {
            *of_client -= self.count;
            if *of_client == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

/// What one client has: an address of IPv4, or a network of IPv6 with 64 bits, of which a client has all addresses.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// How many places so many files leave for each side.
fn of_files(files: usize) -> usize {
    (files.saturating_sub(RESERVE) / 2).clamp(LEAST, MOST)
}

/// How many files the process may open, once it has raised its limit as far as it may.
fn files() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current };
    limit.map_or(UNKNOWN, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests;
