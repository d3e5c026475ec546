//! The number of runs that each client has under way, bounded so that none takes all the room for runs.
//!
//! A client may have at most half of what is free for it: as many runs as are still free. One alone has half of them;
//! two that want all of it come to have a third each, and a third stays free for others. A client is remembered only
//! while it has runs under way.

use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

/// The sender of a request, as far as limits are concerned: a hash under a secret of this process. Two clients that
/// have the same hash by chance share what one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only a layer has clients"))]
pub(crate) struct Client(pub(crate) u64);

/// The number of runs that each client has under way.
#[derive(Debug, Default)]
pub(super) struct Clients(DashMap<Client, usize, RandomState>);

impl Clients {
    /// Counts one more run of `client`, unless it has its share. `free` counts the run among all, and returns how many
    /// were free before. A run without a client keeps to no share. An error says why there is no room.
    pub(super) fn admit(&self, client: Option<Client>, free: impl FnOnce() -> usize) -> Result<(), &'static str> {
        // The client's entry is locked until its run is counted.
        let place = client.map(|client| self.0.entry(client));
        let own = match &place {
            Some(Entry::Occupied(own)) => *own.get(),
            Some(Entry::Vacant(_)) | None => 0,
        };
        match free() {
            0 => Err("there are max_runs runs"),
            // All that this client could have is `own + free`, so half of it is taken.
            free if own >= free => Err("one client has its share of max_runs"),
            _ => {
                place.map(|place| place.insert(own + 1));
                Ok(())
            }
        }
    }

    /// Counts one run of `client` less.
    pub(super) fn dismiss(&self, client: Option<Client>) {
        // A run without a client is counted in `Slots::live` alone.
        let Some(client) = client else { return };
        self.0.remove_if_mut(&client, |_, own| {
            *own -= 1;
            *own == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_remembered_only_while_it_has_runs() {
        let clients = Clients::default();
        let [alice, bob] = [Client(1), Client(2)].map(Some);
        assert!(clients.admit(alice, || 4).is_ok() && clients.admit(alice, || 3).is_ok());
        assert_eq!(clients.admit(alice, || 2), Err("one client has its share of max_runs"));
        assert!(clients.admit(bob, || 2).is_ok());
        assert!(clients.admit(None, || 1).is_ok(), "it has no share to keep to");
        assert_eq!(clients.admit(Some(Client(3)), || 0), Err("there are max_runs runs"));
        assert_eq!(clients.0.len(), 2, "who was refused is not remembered");
        [alice, alice, bob, None].into_iter().for_each(|client| clients.dismiss(client));
        assert!(clients.0.is_empty());
    }
}
