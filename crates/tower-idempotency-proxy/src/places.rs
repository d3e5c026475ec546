//! How much is under way at a time: as much as there are files for, and a share of it for each client.

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
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_client: HashMap<Option<IpAddr>, usize>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    of: Places,
    client: Option<IpAddr>,
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
        let client = client.map(network);
        let mut taken = self.lock();
        let of_client = taken.by_client.get(&client).copied().unwrap_or_default();
        if taken.all >= self.most || client.is_some() && of_client >= self.share() {
            return None;
        }
        taken.all += 1;
        *taken.by_client.entry(client).or_default() += 1;
        Some(Place { of: self.clone(), client })
    }

    /// The most places of one client.
    pub(crate) fn share(&self) -> usize {
        self.most.div_ceil(2)
    }

    /// Whether all are taken.
    pub(crate) fn are_taken(&self) -> bool {
        self.lock().all >= self.most
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.lock();
        taken.all -= 1;
        if let Some(of_client) = taken.by_client.get_mut(&self.client) {
            *of_client -= 1;
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
    let limit = if current != maximum && setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current };
    limit.map_or(UNKNOWN, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_half_of_the_places_and_all_have_no_more_than_there_are() {
        let places = Places::with(5);
        let client = |number| Some(IpAddr::from([10, 0, 0, number]));
        let of_one: Vec<_> = (0..3).map_while(|_| places.take(client(1))).collect();
        assert_eq!(of_one.len(), 3);
        // An address of IPv4 within IPv6 is the same client.
        let mapped = std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
        assert!(places.take(client(1)).is_none() && places.take(Some(mapped.into())).is_none());
        let others: Vec<_> = (0..2).map_while(|_| places.take(client(2))).collect();
        assert_eq!(others.len(), 2);
        assert!(places.take(client(3)).is_none() && places.are_taken());
        drop(of_one);
        assert!(places.take(client(3)).is_some() && places.take(client(1)).is_some());
        drop(others);
        // A network of IPv6 is one client, and one that is not known has no share.
        let of_network = |host: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]));
        let of_one: Vec<_> = (0..5).map_while(|host| places.take(of_network(host))).collect();
        let unknown: Vec<_> = (0..5).map_while(|_| places.take(None)).collect();
        assert_eq!((of_one.len(), unknown.len()), (3, 2));
        drop((of_one, unknown));
        assert!(places.lock().by_client.is_empty());
    }
    /// Takes so many places for the clients of these numbers; 0 is one that is not known.
    fn taken(places: &Places, clients: &[(u8, usize)]) -> Vec<Place> {
        let takes = clients.iter().flat_map(|(number, count)| std::iter::repeat_n(*number, *count));
        takes.map(|number| places.take(client(number)).expect("there is room")).collect()
    }

    fn client(number: u8) -> Option<IpAddr> {
        (number > 0).then(|| IpAddr::from([10, 0, 0, number]))
    }

    #[test]
    fn each_client_has_room_or_none_by_its_own_share_and_by_all_places() {
        // What is taken of how many; and whether the first, the second and an unknown client have room.
        for (most, clients, expected) in [
            (4, &[][..], [true, true, true]),
            // The own share is full, and there are places.
            (4, &[(1, 2)], [false, true, true]),
            (5, &[(1, 2)], [true, true, true]),
            (5, &[(1, 3)], [false, true, true]),
            (4, &[(1, 2), (2, 1)], [false, true, true]),
            // All are full, and the own share is not.
            (4, &[(1, 1), (2, 1), (0, 2)], [false, false, false]),
            (4, &[(0, 4)], [false, false, false]),
            (4, &[(1, 2), (2, 2)], [false, false, false]),
            (1, &[], [true, true, true]),
            (1, &[(1, 1)], [false, false, false]),
            // What is not known has no share, and takes none of a client's.
            (4, &[(0, 3)], [true, true, true]),
            (4, &[(0, 2), (1, 1)], [true, true, true]),
        ] {
            let places = Places::with(most);
            let _taken = taken(&places, clients);
            let found = [1, 2, 0].map(|number| places.take(client(number)).is_some());
            assert_eq!(found, expected, "{clients:?} of {most}");
        }
    }

    #[test]
    fn the_reserve_is_left_of_few_files_and_many_have_a_bound() {
        for (files, expected) in [
            (0, LEAST),
            (RESERVE, LEAST),
            (RESERVE + 2 * LEAST, LEAST),
            (RESERVE + 2 * LEAST + 2, LEAST + 1),
            (1_024, 288),
            (RESERVE + 2 * MOST, MOST),
            (RESERVE + 2 * MOST + 2, MOST),
            (usize::MAX, MOST),
        ] {
            assert_eq!(of_files(files), expected, "{files}");
        }
    }
}
