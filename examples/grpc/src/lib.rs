//! A gRPC service behind the layer. The layer goes where tonic's layers go, `Server::builder().layer(…)`, with
//! `any_body()`, because tonic's body is a type of its own. A refused call gets a gRPC status.
//!
//! Every call is a POST, which is covered; the `idempotency-key` metadata is an HTTP header; `grpc-status` is a
//! trailer, and is recorded and replayed; `te: trailers`, which gRPC clients send, is no part of what a request is. A
//! server stream is recorded if it ends within `outcome_body_timeout` and `max_response_body`; a longer one is passed
//! on and not replayed.

mod text;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
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
