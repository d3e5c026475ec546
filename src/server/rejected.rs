//! The answer to a request that is rejected.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::not_applied::is_of_answers;
use super::options::Options;
use super::reject::grpc;
use super::reject::rejection::Rejection;

/// Returns the answer to a request that is rejected, with the rejection in its extensions.
pub(super) fn answer(options: &Options, rejection: Rejection, is_grpc: bool) -> Response<Bytes> {
    // The renderer, and layers outside that look into the extensions, see the layer's own base, status and code.
    let problem_base = Some(Arc::clone(&options.problem_base));
    let mut rejection = Rejection { problem_base, ..rejection };
    options.profile.name(&mut rejection);
    let mut response = match &options.render_rejection {
        Some(render) => {
            let mut response = render(&rejection);
            rejection.say(response.headers_mut());
            response
        }
        None if is_grpc => grpc::render(&rejection),
        None => options.profile.envelope.render(&rejection),
    };
    // A client would take a success for the answer to its request. A gRPC call has its own status.
    let is_refusal = |status: &StatusCode| is_of_answers(*status) && !status.is_success();
    if !is_grpc && !is_refusal(&response.status()) {
        let status = Some(rejection.status).filter(is_refusal);
        *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    }
    options.say_retry(response.status(), response.headers_mut(), rejection.retry_with_same_key);
    options.name_outcome(&mut response, rejection.kind.slug());
    response.extensions_mut().insert(rejection);
    response
}
