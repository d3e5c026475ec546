//! The hosts of a database that has several, such as a primary and its standby: which is asked first, and for how long.
//!
//! One that stands still, or whose machine is gone, says nothing. It must not use up the time that there is for a
//! connection, or the one that has taken its place would never be asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// The configuration of each host, in the order in which they were given.
pub(super) struct Hosts {
    each: Vec<Config>,
    /// The one that answered last.
    first: AtomicUsize,
    /// How long one may take if there are others; `None` if there is only one.
    patience: Option<Duration>,
}

impl Hosts {
    /// The hosts of `config`. All of them together may take as long as `wait`.
    pub(super) fn new(config: Config, wait: Duration) -> Self {
        let count = config.get_hosts().len().max(config.get_hostaddrs().len());
        let first = AtomicUsize::new(0);
        match u32::try_from(count) {
            Ok(several @ 2..) => {
                let each = (0..count).map(|number| alone(&config, number)).collect();
                Self { each, first, patience: Some(wait / several) }
            }
            // None at all is an error that connecting explains.
            _ => Self { each: vec![config], first, patience: None },
        }
    }

    pub(super) fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// The hosts by their numbers, that which answered last first.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = (usize, &Config)> {
        let first = self.first.load(Ordering::Relaxed);
        let (before, after) = (self.each.iter().enumerate().take(first), self.each.iter().enumerate().skip(first));
        after.chain(before)
    }

    /// Takes note of which one has answered.
    pub(super) fn answered(&self, number: usize) {
        self.first.store(number, Ordering::Relaxed);
    }
}

/// The same configuration with one of its hosts.
fn alone(config: &Config, number: usize) -> Config {
    let mut alone = Config::new();
    match config.get_hosts().get(number) {
        Some(Host::Tcp(name)) => {
            alone.host(name);
        }
        #[cfg(unix)]
        Some(Host::Unix(path)) => {
            alone.host_path(path);
        }
        None => {}
    }
    if let Some(address) = config.get_hostaddrs().get(number) {
        alone.hostaddr(*address);
    }
    // One port may be that of all.
    if let Some(port) = config.get_ports().get(number).or_else(|| config.get_ports().first()) {
        alone.port(*port);
    }
    if let Some(user) = config.get_user() {
        alone.user(user);
    }
    if let Some(password) = config.get_password() {
        alone.password(password);
    }
    if let Some(name) = config.get_dbname() {
        alone.dbname(name);
    }
    if let Some(options) = config.get_options() {
        alone.options(options);
    }
    if let Some(name) = config.get_application_name() {
        alone.application_name(name);
    }
    if let Some(timeout) = config.get_connect_timeout() {
        alone.connect_timeout(*timeout);
    }
    if let Some(timeout) = config.get_tcp_user_timeout() {
        alone.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        alone.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        alone.keepalives_retries(retries);
    }
    alone
        .ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding())
        .load_balance_hosts(config.get_load_balance_hosts());
    alone
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &str = "user=u password=p dbname=d options='-c a=b' application_name=n sslmode=require \
        connect_timeout=3 tcp_user_timeout=4 keepalives=0 keepalives_idle=5 keepalives_interval=6 keepalives_retries=7 \
        target_session_attrs=read-write channel_binding=require load_balance_hosts=random";

    fn config(hosts: &str) -> Config {
        format!("{OPTIONS} {hosts}").parse().unwrap()
    }

    #[test]
    fn each_host_has_all_that_was_said_of_the_database() {
        for (all, each) in [
            ("host=a,b port=1,2", ["host=a port=1", "host=b port=2"]),
            ("host=a,/b port=1", ["host=a port=1", "host=/b port=1"]),
            ("host=a,b hostaddr=127.0.0.1,127.0.0.2", ["host=a hostaddr=127.0.0.1", "host=b hostaddr=127.0.0.2"]),
            ("hostaddr=127.0.0.1,127.0.0.2", ["hostaddr=127.0.0.1", "hostaddr=127.0.0.2"]),
        ] {
            let hosts = Hosts::new(config(all), Duration::from_secs(2));
            assert_eq!(hosts.each, each.map(config), "{all}");
            assert_eq!(hosts.patience(), Some(Duration::from_secs(1)));
        }
        assert_eq!(Hosts::new(config("host=a"), Duration::from_secs(2)).patience(), None);
    }

    #[test]
    fn the_one_that_answered_last_is_asked_first() {
        let hosts = Hosts::new(config("host=a,b,c"), Duration::from_secs(2));
        hosts.answered(1);
        assert_eq!(hosts.in_turn().map(|(number, _)| number).collect::<Vec<_>>(), [1, 2, 0]);
    }
}
