//! `pay.Charges`, with one method, `Charge`. It is written by hand; `tonic-build` would generate it from a `.proto`
//! file.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tower_service::Service;

use super::text::Text;

/// The one method of [`Charges`].
pub(crate) const CHARGE: &str = "/pay.Charges/Charge";

type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// The service, which counts its effects.
#[derive(Clone, Default)]
pub(crate) struct Charges {
    effects: Arc<AtomicUsize>,
}

impl Charges {
    /// Returns the number of charges.
    pub(crate) fn effects(&self) -> usize {
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
