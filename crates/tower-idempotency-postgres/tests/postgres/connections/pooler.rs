//! Behind PgBouncer in transaction mode: each transaction has another connection of the server.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tempfile::TempDir;
use testkit::dice::free_address;
use testkit::skipped;
use tower_idempotency_conformance::backend::BackendSubject;
use tower_idempotency_postgres::{PostgresBackend, PostgresError};
use tower_idempotency_shared::{Backend as _, Kind, Write};

use crate::lab::{Lab, address, builder, claim, id, lab, own_server, put, until};

/// Ends the pooler when the standard input ends, which it does when the test's process ends in any way.
const GUARD: &str = r#"
trap '' INT TERM HUP
"$@" >/dev/null 2>&1 & pooler=$!
echo $pooler
read -r _
kill -TERM $pooler 2>/dev/null
wait $pooler
rm -rf "$DIRECTORY"
"#;

/// A pooler before a server. It ends when this is dropped or the process ends.
struct Pooler {
    guard: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Pooler {
    /// Starts a pooler before the server at this address. The error names the part that is missing.
    fn start(server: SocketAddr, settings: &str) -> Result<Self, String> {
        // Debian has it where only root looks.
        let found = |program: &&str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
        let program = ["pgbouncer", "/usr/sbin/pgbouncer"].into_iter().find(found).ok_or("pgbouncer is missing")?;
        // The guard deletes it: it outlives this process.
        let directory = TempDir::with_prefix("pgbouncer").map_err(|error| error.to_string())?.keep();
        // It refuses to run as root.
        let nobody = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0).then_some(65_534);
        let address = free_address();
        let file = directory.join("pgbouncer.ini");
        let path = directory.display();
        let text = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {path}/users\nlogfile = {path}/log\n\
             pool_mode = transaction\ndefault_pool_size = 8\nmax_client_conn = 500\n{settings}\n",
            server.ip(),
            server.port(),
            address.ip(),
            address.port()
        );
        fs::write(&file, text).unwrap();
        fs::write(directory.join("users"), "\"postgres\" \"\"\n").unwrap();
        if nobody.is_some() {
            chown(&directory, nobody, nobody).map_err(|error| error.to_string())?;
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "guard", program]).arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("DIRECTORY", &directory);
        if let Some(id) = nobody {
            command.uid(id).gid(id);
        }
        let mut guard = command.spawn().expect("a shell is there");
        let mut first = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let pooler = Self { guard, address, directory };
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(60), "the pooler does not start: {}", pooler.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(pooler)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// The pooler that most tests share, before the server that most tests share.
fn shared_pooler(lab: &Lab, promise: &str) -> Option<&'static Pooler> {
    static POOLER: OnceLock<Result<Pooler, String>> = OnceLock::new();
    POOLER
        .get_or_init(|| Pooler::start(address(&lab.url), ""))
        .as_ref()
        .map_err(|obstacle| skipped(promise, obstacle))
        .ok()
}

async fn subject() -> Option<BackendSubject<PostgresBackend>> {
    let promise = "the contract behind a pooler";
    let lab = lab(promise).await?;
    let url = shared_pooler(&lab, promise)?.url();
    let open = async |namespace: &str| builder(&url, namespace).behind_pooler().open().await.unwrap();
    let subject = BackendSubject::new(open(&lab.namespace).await).another_process(open(&lab.namespace).await);
    Some(subject.another_namespace(open(&format!("{}-another", lab.namespace)).await))
}

tower_idempotency_conformance::backend_conformance!(subject);

#[tokio::test]
async fn notifications_that_are_swallowed_are_noticed() {
    let promise = "that a pooler swallows notifications";
    let Some(lab) = lab(promise).await else { return };
    let Some(pooler) = shared_pooler(&lab, promise) else { return };
    let pooled = builder(&pooler.url(), &lab.namespace).behind_pooler();
    pooled.migrate().await.unwrap();
    let pooled = pooled.open().await.unwrap();
    until("it is noticed", async || pooled.guarantee().await.unwrap().setup.contains("notifications do not arrive"))
        .await;
}

/// PgBouncer may give the connection on which one process has sent `LISTEN` to another process in the next moment.
#[tokio::test]
async fn what_a_pooler_swallows_reaches_nobody_else() {
    let promise = "that no other process gets what a pooler swallows";
    let Some(server) = own_server(promise, &[]) else { return };
    let pooler = match Pooler::start(server.address(), "") {
        Ok(pooler) => pooler,
        Err(obstacle) => return skipped(promise, &obstacle),
    };
    let lab = Lab::new(&server.url()).await;
    let pooled = builder(&pooler.url(), &lab.namespace).behind_pooler().open().await.unwrap();
    until("it is noticed", async || pooled.guarantee().await.unwrap().setup.contains("do not arrive")).await;
    let pings = pooler.log().matches("got packet 'A'").count();
    let mut changes = lab.backend.changes();
    // The direct listener hears, once it listens.
    for number in 0.. {
        put(&pooled, Write { kind: Kind::Completed, ..claim(id(number)) }).await;
        if tokio::time::timeout(Duration::from_millis(500), changes.next()).await.is_ok() {
            break;
        }
        assert!(number < 100, "nothing is heard");
    }
    assert_eq!(pooler.log().matches("got packet 'A'").count(), pings, "{}", pooler.log());
}

#[tokio::test]
async fn a_pooler_that_nobody_has_told_of_is_named() {
    let promise = "that an untold pooler is named";
    let Some(lab) = lab(promise).await else { return };
    for settings in ["ignore_startup_parameters = options", ""] {
        let pooler = match Pooler::start(address(&lab.url), settings) {
            Ok(pooler) => pooler,
            Err(obstacle) => return skipped(promise, &obstacle),
        };
        let builder = PostgresBackend::from_url(&pooler.url()).unwrap();
        let refused = builder.clone().open().await.unwrap_err();
        assert!(
            matches!(refused, PostgresError::Refused { .. }) && refused.to_string().contains("behind_pooler"),
            "{refused}"
        );
        builder.behind_pooler().open().await.unwrap();
    }
}
