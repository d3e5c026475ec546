//! The alert, as `ops/alerts.yml` has it.

use testkit::payment_server::Server;

const ALERTS: &str = include_str!("../../../ops/alerts.yml");
const ALERT: &str = "IdempotencyOperationInterrupted";

/// Returns whether the alert's expression is true of what a server says now. The alert fires if it is so for five
/// minutes. It takes the last value of ten minutes.
pub(crate) async fn is_true(server: &Server) -> bool {
    let (name, threshold) = expression();
    let metrics = server.get("/metrics").await;
    let mut lines = metrics.text().lines().filter_map(|line| line.strip_prefix(&name));
    let value: f64 = lines.find_map(|rest| rest.trim().parse().ok()).expect("the metric is there");
    value > threshold
}

/// The metric of the alert's expression, and the bound that it must exceed.
fn expression() -> (String, f64) {
    let mut lines = ALERTS.lines().skip_while(|line| !line.ends_with(ALERT));
    let expression = lines.find_map(|line| line.trim().strip_prefix("expr: ")).expect("the alert has an expression");
    let parts = expression.strip_prefix("max by (job) (last_over_time(").and_then(|rest| rest.split_once("[10m])) > "));
    let (name, threshold) = parts.unwrap_or_else(|| panic!("this is no simple comparison: {expression}"));
    (name.to_owned(), threshold.parse().expect("a number"))
}
