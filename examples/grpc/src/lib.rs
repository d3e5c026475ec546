//! A gRPC service behind the layer.
//!
//! tonic's body is a type of its own, which the layer does not know. It need not: tonic's routes *are* an axum router, and
//! there the layer goes, on axum's body. (In a stack without axum, put tower-http's `MapRequestBodyLayer` and
//! `MapResponseBodyLayer` around the layer, with `axum::body::Body::new` and `tonic::body::Body::new`.)
//!
//! What else gRPC needs of a layer, and gets: every call is a POST, which is covered; the `idempotency-key` metadata is an
//! HTTP header; `grpc-status` is a trailer, and is recorded and replayed; `te: trailers`, which gRPC clients send, is the
//! connection's own and no part of what a request is. A server stream is recorded like any other body, if it ends within
//! `outcome_body_timeout` and `max_response_body`; a longer one is passed on and not replayed.

mod text;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::service::Routes;
use tonic::{Code, Status};
use tower_idempotency::store::Store;
use tower_idempotency::{IdempotencyLayer, Rejection, RejectionKind};
use tower_service::Service;

pub use text::Text;

/// The one method of [`Charges`].
pub const CHARGE: &str = "/pay.Charges/Charge";

type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// `pay.Charges`, with one method, `Charge`. What `tonic-build` would make of a `.proto` file, by hand.
#[derive(Debug, Clone, Default)]
pub struct Charges {
    effects: Arc<AtomicUsize>,
}

impl Charges {
    /// How often somebody was charged.
    #[must_use]
    pub fn effects(&self) -> usize {
        self.effects.load(Ordering::SeqCst)
    }
}

impl UnaryService<String> for Charges {
    type Response = String;
    type Future = Boxed<tonic::Response<String>, Status>;

    fn call(&mut self, request: tonic::Request<String>) -> Self::Future {
        let number = self.effects.fetch_add(1, Ordering::SeqCst) + 1;
        Box::pin(async move {
            match request.into_inner().as_str() {
                "a fortune" => Err(Status::failed_precondition(format!("charge {number} was declined"))),
                amount => Ok(tonic::Response::new(format!("charge {number}: {amount}"))),
            }
        })
    }
}

impl NamedService for Charges {
    const NAME: &'static str = "pay.Charges";
}

impl Service<http::Request<Body>> for Charges {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let charges = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                CHARGE => Grpc::new(Text).unary(charges, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// `charges` behind the layer, for `Server::builder().add_routes(…)`.
pub fn routes<St: Store>(charges: Charges, layer: IdempotencyLayer<St>) -> Routes {
    let router = Routes::new(charges).into_axum_router();
    router.layer(layer.render_rejection(as_status)).into()
}

/// A refusal as a gRPC client understands it, instead of an HTTP status and a problem document.
fn as_status(rejection: &Rejection) -> http::Response<Bytes> {
    let code = match rejection.kind {
        RejectionKind::KeyMissing | RejectionKind::KeyMalformed | RejectionKind::KeyReused => Code::InvalidArgument,
        RejectionKind::BodyTooLarge | RejectionKind::StoreFull => Code::ResourceExhausted,
        RejectionKind::StoreUnavailable | RejectionKind::Overloaded | RejectionKind::ShuttingDown => Code::Unavailable,
        RejectionKind::InFlight => Code::Aborted,
        RejectionKind::OutcomeUnknown => Code::Unknown,
        _ => Code::FailedPrecondition,
    };
    Status::new(code, format!("{}: {}", rejection.kind.slug(), rejection.detail)).into_http()
}
