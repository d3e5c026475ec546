//! The hosts of a configuration, one at a time: one that does not answer must not keep the others from being tried.

use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// A configuration for each host, and nothing else changed.
pub(super) fn each(config: &Config) -> Vec<Config> {
    let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
    if hosts < 2 {
        return vec![config.clone()];
    }
    (0..hosts).map(|index| alone(config, index)).collect()
}

/// Returns the place of the only host of a configuration: its name and its port.
pub(super) fn place(config: &Config) -> String {
    let port = config.get_ports().first().unwrap_or(&5432);
    match (config.get_hosts().first(), config.get_hostaddrs().first()) {
        (Some(Host::Tcp(name)), _) if name.contains(':') => format!("[{name}]:{port}"),
        (Some(Host::Tcp(name)), _) => format!("{name}:{port}"),
        #[cfg(unix)]
        (Some(Host::Unix(path)), _) => format!("{}:{port}", path.display()),
        (None, Some(address)) => std::net::SocketAddr::new(*address, *port).to_string(),
        (None, None) => "no host".to_owned(),
    }
}

/// The configuration for one of several hosts.
fn alone(config: &Config, index: usize) -> Config {
    // A `Config` can't lose hosts, so a new one gets each setting. One that is missing here would be lost.
    let mut alone = Config::new();
    match config.get_hosts().get(index) {
        Some(Host::Tcp(name)) => drop(alone.host(name)),
        #[cfg(unix)]
        Some(Host::Unix(path)) => drop(alone.host_path(path)),
        None => {}
    }
    if let Some(address) = config.get_hostaddrs().get(index) {
        alone.hostaddr(*address);
    }
    // One port alone is that of all hosts.
    if let Some(port) = config.get_ports().get(index).or_else(|| config.get_ports().first()) {
        alone.port(*port);
    }
    if let Some(user) = config.get_user() {
        alone.user(user);
    }
    if let Some(password) = config.get_password() {
        alone.password(password);
    }
    if let Some(database) = config.get_dbname() {
        alone.dbname(database);
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
    alone.keepalives(config.get_keepalives());
    alone.keepalives_idle(config.get_keepalives_idle());
    alone.ssl_mode(config.get_ssl_mode());
    alone.ssl_negotiation(config.get_ssl_negotiation());
    alone.target_session_attrs(config.get_target_session_attrs());
    alone.channel_binding(config.get_channel_binding());
    alone.load_balance_hosts(config.get_load_balance_hosts());
    alone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_all_of_the_configuration() {
        let all = "user=u password=p dbname=d options='-c jit=off' application_name=a sslmode=require \
            sslnegotiation=direct connect_timeout=7 tcp_user_timeout=8 keepalives=0 keepalives_idle=9 \
            keepalives_interval=10 keepalives_retries=11 target_session_attrs=read-only channel_binding=require \
            load_balance_hosts=random";
        let config = |hosts: &str| format!("{all} {hosts}").parse::<Config>().unwrap();
        let several = config("host=a,/b,c hostaddr=127.0.0.1,127.0.0.2,127.0.0.3 port=1,2,3");
        let expected = [
            config("host=a hostaddr=127.0.0.1 port=1"),
            config("host=/b hostaddr=127.0.0.2 port=2"),
            config("host=c hostaddr=127.0.0.3 port=3"),
        ];
        assert_eq!(each(&several), expected);
        assert_eq!(each(&config("host=a,b port=5")), [config("host=a port=5"), config("host=b port=5")]);
        assert_eq!(each(&config("host=a")), [config("host=a")]);
        let bare = |hosts: &str| hosts.parse::<Config>().unwrap();
        assert_eq!(each(&bare("host=a,b")), [bare("host=a"), bare("host=b")]);
    }

    #[test]
    fn a_host_is_named_with_its_port() {
        for (config, expected) in [
            ("host=db.example port=5433 user=u password=s3cr3t", "db.example:5433"),
            ("host=db.example", "db.example:5432"),
            ("host=/run/postgresql", "/run/postgresql:5432"),
            ("host=::1 port=7", "[::1]:7"),
            ("hostaddr=127.0.0.2", "127.0.0.2:5432"),
        ] {
            assert_eq!(place(&config.parse().unwrap()), expected);
        }
    }
}
