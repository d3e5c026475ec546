//! A `RabbitMQ` server of one's own: in a temporary directory, on a loopback address of its own.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use testkit::dice::loopback;

/// Debian's, past the script that would run it as another user.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Runs the server, and Erlang's name service for it, until the standard input ends: this process has ended then, in
/// whatever way, Ctrl-C included. They are a process group, which ends as one. The guard ends after the server: the
/// shell becomes Debian's script, and this becomes Erlang (see `RABBITMQ_ALLOW_INPUT`), so `wait` waits for that.
const GUARD: &str = r#"
trap '' INT TERM HUP
setsid sh -c 'epmd -port "$ERL_EPMD_PORT" -address "$RABBITMQ_NODE_IP_ADDRESS" & exec "$0"' "$0" </dev/null & group=$!
read -r _
kill -s KILL -- "-$group"
wait $group
"#;

/// A server. It ends when this is dropped, or when the process ends.
#[derive(Debug)]
pub struct Broker {
    directory: TempDir,
    guard: Child,
    address: SocketAddr,
}

impl Broker {
    /// Starts a server.
    ///
    /// # Errors
    /// [`NotFound`](io::ErrorKind::NotFound): it is not installed. Or it does not start within a minute.
    pub fn start() -> io::Result<Self> {
        if !Path::new(PROGRAM).exists() {
            let missing = "there is no RabbitMQ: install Debian's package rabbitmq-server";
            return Err(io::Error::new(io::ErrorKind::NotFound, missing));
        }
        let directory = tempfile::tempdir()?;
        // Connections of other tests take ports of 127.0.0.1 while this starts, and none of this address.
        let host = loopback();
        let erlang = format!(
            "-noinput -kernel inet_dist_use_interface {{{}}}",
            host.octets().map(|octet| octet.to_string()).join(",")
        );
        let [port, names, nodes] = free_ports(host)?;
        let (at, plugins) = (directory.path(), directory.path().join("plugins"));
        fs::write(&plugins, "[].")?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, PROGRAM])
            .env("HOME", at)
            .env("ERL_EPMD_PORT", names.to_string())
            .env("RABBITMQ_NODENAME", format!("n@{host}"))
            .env("RABBITMQ_USE_LONGNAME", "true")
            .env("RABBITMQ_NODE_IP_ADDRESS", host.to_string())
            .env("RABBITMQ_NODE_PORT", port.to_string())
            .env("RABBITMQ_DIST_PORT", nodes.to_string())
            .env("RABBITMQ_ALLOW_INPUT", "true")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", erlang)
            .env("RABBITMQ_MNESIA_BASE", at)
            .env("RABBITMQ_LOG_BASE", at)
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins)
            .env("RABBITMQ_CONFIG_FILE", at.join("rabbitmq"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_LOGS", "-")
            .stdin(Stdio::piped())
            .stdout(fs::File::create(at.join("log"))?)
            .stderr(Stdio::null())
            .spawn()?;
        let broker = Self { directory, guard, address: SocketAddr::from((host, port)) };
        let began = Instant::now();
        while !broker.log().contains("Server startup complete") {
            if began.elapsed() > STARTS_WITHIN {
                return Err(io::Error::other(format!("RabbitMQ does not start: {}", broker.log())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(broker)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The guard reads the end of its input, and kills the server.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn free_ports<const N: usize>(host: Ipv4Addr) -> io::Result<[u16; N]> {
    // All of them are bound at once, so that they differ.
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((host, 0))?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
