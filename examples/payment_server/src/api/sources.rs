//! The faults that a charge's `source` causes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use tower_idempotency::Unsure;

use super::errors::ApiError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Visa,
    Declined,
    Slow,
    Error,
    Unavailable,
    Panic,
    Timeout,
    Crash,
}

impl Source {
    const ALL: [Self; 8] = [
        Self::Visa,
        Self::Declined,
        Self::Slow,
        Self::Error,
        Self::Unavailable,
        Self::Panic,
        Self::Timeout,
        Self::Crash,
    ];

    fn token(self) -> &'static str {
        match self {
            Self::Visa => "tok_visa",
            Self::Declined => "tok_chargeDeclined",
            Self::Slow => "tok_slow",
            Self::Error => "tok_error",
            Self::Unavailable => "tok_unavailable",
            Self::Panic => "tok_panic",
            Self::Timeout => "tok_timeout",
            Self::Crash => "tok_crash",
        }
    }

    /// Acts before the charge. Returns an answer if there is to be no charge.
    pub(crate) async fn before(self) -> Option<Response> {
        match self {
            Self::Slow => {
                tokio::time::sleep(Duration::from_secs(2)).await;
                None
            }
            Self::Declined => Some(ApiError::declined().into_response()),
            Self::Unavailable => Some(ApiError::unavailable("Nothing was charged; try again.").into_response()),
            Self::Visa | Self::Error | Self::Panic | Self::Timeout | Self::Crash => None,
        }
    }

    /// Acts once the charge is durable. Returns an answer that replaces the charge's, if there is one.
    pub(crate) fn after(self) -> Option<Response> {
        match self {
            Self::Panic => panic!("tok_panic: charged, and then this"),
            Self::Crash => {
                tracing::error!("tok_crash: charged, and now the process ends");
                std::process::exit(70)
            }
            Self::Error => {
                let error = ApiError::api(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong after the charge.");
                Some(error.into_response())
            }
            Self::Timeout => {
                let error = ApiError::api(StatusCode::GATEWAY_TIMEOUT, "The card network did not answer in time.");
                // This server does not know whether it charged: an operator settles it, or the ledger is asked.
                Some((Unsure, error).into_response())
            }
            Self::Visa | Self::Declined | Self::Slow | Self::Unavailable => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

impl FromStr for Source {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|source| source.token() == text).ok_or(())
    }
}
