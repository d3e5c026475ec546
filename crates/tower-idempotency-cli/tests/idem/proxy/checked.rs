//! `idem check` finds nothing in `idem proxy`, whose process is restarted and killed meanwhile.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use tempfile::tempdir;
use testkit::dice::free_address;

use crate::program::{accepts, idem, program};

/// A service that outlives the proxy, and counts its orders.
async fn service() -> SocketAddr {
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let order = async move |body: String| {
        let number = made.fetch_add(1, Ordering::SeqCst);
        // As long as a busy machine may need to send another request meanwhile.
        if body.contains("slow") {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        (StatusCode::CREATED, format!("order {number}"))
    };
    let app = Router::new().route("/orders", post(order).get(async move || counted.load(Ordering::SeqCst).to_string()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// A script that ends the proxy by a signal, if it is given one, and starts it.
struct Script(PathBuf);

impl Script {
    fn new(directory: &Path, listen: SocketAddr, service: SocketAddr) -> Self {
        let (pid, store) = (directory.join("pid").display().to_string(), directory.join("store"));
        let monitor = free_address();
        let idem = program(&[] as &[&str]).get_program().to_str().unwrap().to_owned();
        let script = format!(
            "if [ -n \"$1\" ]; then\n  kill -\"$1\" \"$(cat {pid})\"\n  \
             for _ in $(seq 200); do kill -0 \"$(cat {pid})\" 2>/dev/null || break; sleep 0.05; done\nfi\n\
             [ \"$2\" = end ] && exit 0\n\
             {idem} proxy --one-account --listen {listen} --monitor {monitor} --upstream http://{service} --store sled:{} \
             >/dev/null 2>&1 &\necho $! >{pid}\n",
            store.display()
        );
        let path = directory.join("proxy.sh");
        std::fs::write(&path, script).unwrap();
        Self(path)
    }

    fn run(&self, arguments: &[&str]) {
        let status = std::process::Command::new("sh").arg(&self.0).args(arguments).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.run(&["KILL", "end"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_proxy_has_answered_survives_its_restart_and_its_death() {
    let directory = tempdir().unwrap();
    let (listen, service) = (free_address(), service().await);
    let script = Script::new(directory.path(), listen, service);
    script.run(&[]);
    accepts(listen).await;
    let (url, path) = (format!("http://{listen}/orders"), script.0.display().to_string());
    let (restart, kill) = (format!("sh {path} TERM"), format!("sh {path} KILL"));
    let arguments = [
        "check", &url, "--data", "amount=5", "--slow", "amount=5&slow=1", "--count", "GET /orders", "--restart",
        &restart, "--kill", &kill,
    ];
    let arguments = arguments.map(str::to_owned);
    let run = move || idem(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let said = tokio::task::spawn_blocking(run).await.unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    for check in ["restart", "kill", "at-once", "hang-up-before-answer"] {
        assert!(said.stdout.contains(&format!("{check:<28} ok")), "{check}: {said:?}");
    }
}
