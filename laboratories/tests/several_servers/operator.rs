//! An operator, who looks at interrupted operations and settles them.

use testkit::Call;
use testkit::payment_server::Server;

use crate::report::Report;

/// An operation that is listed as interrupted: its id, and its fence.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) id: String,
    fence: String,
}

/// Returns the operations that a server lists, in the order in which they began.
pub(crate) async fn listed(server: &Server) -> Vec<Listed> {
    server.interrupted().await.into_iter().map(|(id, fence)| Listed { id, fence }).collect()
}

/// Frees the key.
pub(crate) async fn forget(server: &Server, listed: &Listed, report: &mut Report) {
    let Listed { id, fence } = listed;
    let answer = server.send(&Call::post(&format!("/admin/interrupted/{id}/forget?fence={fence}"), "")).await;
    report.expect(answer.status.is_success(), || format!("an operator can't forget {id}: {answer:?}"));
}

/// Gives retries an answer.
pub(crate) async fn settle(server: &Server, listed: &Listed, body: &str, report: &mut Report) {
    let Listed { id, fence } = listed;
    let answer = server.send(&Call::post(&format!("/admin/interrupted/{id}/answer?fence={fence}"), body)).await;
    report.expect(answer.status.is_success(), || format!("an operator can't settle {id}: {answer:?}"));
}
