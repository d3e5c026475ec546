//! An operator, who settles interrupted operations.

use testkit::payment_server::{Listed, Server};

use crate::report::Report;

/// Frees the key.
pub(crate) async fn release(server: &Server, listed: &Listed, report: &mut Report) {
    let result = server.release(listed).await;
    report.expect(result == "done", || format!("an operator can't free the key of {}: {result}", listed.id));
}

/// Gives retries an answer.
pub(crate) async fn settle(server: &Server, listed: &Listed, body: &str, report: &mut Report) {
    let result = server.answer(listed, body).await;
    report.expect(result == "done", || format!("an operator can't settle {}: {result}", listed.id));
}
