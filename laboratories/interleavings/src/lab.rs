//! What the shared checker calls an answer. There is no HTTP here.

use bytes::Bytes;
use http::StatusCode;

pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Answer {
    pub fn problem(&self) -> String {
        String::new()
    }
}
