//! Which requests are JSON-RPC calls that have keys.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The JSON-RPC calls that have keys. Other messages are passed on untouched, with a key or without one:
/// notifications, responses, and calls that are left out here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RpcCalls {
    /// Each call.
    All,
    /// Calls of tools over MCP: those with the method `tools/call`.
    Tools,
}

/// A message of JSON-RPC 2.0 (sections 4 and 5), as it was sent. A member that is there twice is an error: another
/// program may read the other one.
#[derive(Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// Reads a member that is there, also one that is null.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Message<'_> {
    /// Returns whether it is the response to a call.
    pub(super) fn is_response(&self) -> bool {
        self.method.is_none() && self.id.is_some() && (self.result.is_some() || self.error.is_some())
    }
}

impl RpcCalls {
    /// Returns the `id` of a call that has a key, as it was sent, or `None` if the message is none.
    ///
    /// # Errors
    /// The body is no message: it is no JSON object, or has a member twice. Nor is a batch one.
    pub(crate) fn id_of(self, body: &[u8]) -> Result<Option<Box<str>>, serde_json::Error> {
        let Message { id, method, .. } = serde_json::from_slice(body)?;
        let is_covered = method.is_some_and(|method| self == Self::All || method == "tools/call");
        Ok(id.filter(|_| is_covered).map(|id| id.get().into()))
    }
}
