//! The judges, and the rules of an application's own.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value;

use crate::answer::{Answer, Says};
use crate::{graphql, grpc, json_rpc, pointer};

/// Reads what an answer's body or trailers say about its operation.
///
/// The order, in the layer, the client and the outbox: a mark of the handler's or the header `Idempotency-Effect`, then
/// the judge, then the status. An answer whose body is longer than the limit, broke off or can't be read says nothing
/// by it, and its status counts. So it is where a judge returns `None`, and where it says [`Says::Done`] of an answer
/// whose status is no success.
///
/// It is read from a text as well: `json-rpc`, `graphql` or `grpc`.
#[derive(Clone)]
pub struct BodyJudge(Kind);

#[derive(Clone)]
enum Kind {
    JsonRpc,
    GraphQl,
    Grpc,
    Rules(Arc<[Rule]>),
    Function(Arc<Function>),
}

type Function = dyn Fn(&Answer<'_>) -> Option<Says> + Send + Sync;

impl BodyJudge {
    /// The statuses with which servers of JSON-RPC refuse what they have not read. A 408 or a 409 may come after an
    /// effect.
    pub const UNREAD: &[u16] = json_rpc::UNREAD;

    /// That of JSON-RPC 2.0, also over MCP.
    ///
    /// - Of the errors, -32700, -32600, -32601 and -32602 say that nothing was started. -32603 and the server's own,
    ///   -32000 to -32099, are what a 500 is. Any other is an outcome.
    /// - A `result` is an outcome, with MCP's `isError: true`, too. One that asks for input (`input_required`) is not
    ///   started, and -32800, by which a server of MCP says that the client has cancelled the call, is unknown.
    #[must_use]
    pub fn json_rpc() -> Self {
        Self(Kind::JsonRpc)
    }

    /// That of GraphQL's mutations.
    ///
    /// - `data` that is there, also partly, is an outcome.
    /// - With `data` that is null or absent, the codes of all errors count. `THROTTLED` and the like
    ///   are tried again, by `Retry-After` or Shopify's `extensions.cost`. With those that come before the execution,
    ///   such as `UNAUTHENTICATED` and `GRAPHQL_VALIDATION_FAILED`, nothing was started. With any other it is unknown
    ///   whether the mutation took effect, and so it is with an error whose `path` leads into a field's own selection.
    ///
    /// A request with several mutations may have run the first ones before an error: send one each.
    #[must_use]
    pub fn graphql() -> Self {
        Self(Kind::GraphQl)
    }

    /// That of gRPC: `grpc-status` in the trailers, or in the head of an answer without a body, where the type is
    /// `application/grpc`. The layer, the client and the outbox have it without being asked.
    #[must_use]
    pub fn grpc() -> Self {
        Self(Kind::Grpc)
    }

    /// The first of these rules that fits a JSON body decides.
    #[must_use]
    pub fn rules(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self(Kind::Rules(rules.into_iter().collect()))
    }

    /// A function of the application's own. It gets each answer that was read to its end.
    #[must_use]
    pub fn function(judge: impl Fn(&Answer<'_>) -> Option<Says> + Send + Sync + 'static) -> Self {
        Self(Kind::Function(Arc::new(judge)))
    }

    /// Returns what an answer says other than by its status; `None` if it says nothing so.
    #[must_use]
    pub fn judge(&self, answer: &Answer<'_>) -> Option<Says> {
        let said = match &self.0 {
            Kind::JsonRpc => json_rpc::judge(answer),
            Kind::GraphQl => graphql::judge(answer),
            Kind::Grpc => grpc::judge(answer),
            Kind::Rules(rules) => {
                let body = answer.json()?;
                rules.iter().find(|rule| rule.fits(&body)).map(|rule| rule.says)
            }
            Kind::Function(judge) => judge(answer),
        };
        said.filter(|said| *said != Says::Done || answer.status.is_success())
    }
}

impl FromStr for BodyJudge {
    type Err = UnknownJudge;

    fn from_str(name: &str) -> Result<Self, UnknownJudge> {
        match name {
            "json-rpc" => Ok(Self::json_rpc()),
            "graphql" => Ok(Self::graphql()),
            "grpc" => Ok(Self::grpc()),
            _ => Err(UnknownJudge(name.to_owned())),
        }
    }
}

impl fmt::Debug for BodyJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::JsonRpc => f.write_str("json-rpc"),
            Kind::GraphQl => f.write_str("graphql"),
            Kind::Grpc => f.write_str("grpc"),
            Kind::Rules(rules) => rules.fmt(f),
            Kind::Function(_) => f.write_str("a function"),
        }
    }
}

/// The text names no judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownJudge(String);

impl fmt::Display for UnknownJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is none of the judges json-rpc, graphql and grpc", self.0)
    }
}

impl std::error::Error for UnknownJudge {}

/// A rule of [`BodyJudge::rules`]: what a JSON body says that has one of some values in a place.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The names of members on the way; `*` is each element of a list.
    way: Vec<String>,
    values: Vec<Value>,
    says: Says,
}

impl Rule {
    /// A body with one of these values where the pointer leads to says this. `pointer` is a JSON pointer (RFC 6901) in
    /// which `*` is each element of a list or each member of an object, such as `/errors/*/code`. Without a value, the
    /// rule fits each body that has something there.
    /// ```
    /// use tower_idempotency_meaning::{BodyJudge, Rule, Says};
    ///
    /// let rule = Rule::new("/errors/*/code", ["BUSY", "LOCKED"], Says::TryLater(None))?;
    /// let judge = BodyJudge::rules([rule]);
    /// # Ok::<(), tower_idempotency_meaning::WrongRule>(())
    /// ```
    ///
    /// # Errors
    /// [`WrongRule`] if `pointer` is no JSON pointer.
    pub fn new<V: Into<Value>>(
        pointer: &str,
        values: impl IntoIterator<Item = V>,
        says: Says,
    ) -> Result<Self, WrongRule> {
        let way = pointer::tokens(pointer).ok_or_else(|| WrongRule(pointer.to_owned()))?;
        Ok(Self { way, values: values.into_iter().map(Into::into).collect(), says })
    }

    fn fits(&self, body: &Value) -> bool {
        self.fits_at(&self.way, body)
    }

    fn fits_at(&self, way: &[String], value: &Value) -> bool {
        let Some((name, way)) = way.split_first() else {
            return self.values.is_empty() && !value.is_null() || self.values.contains(value);
        };
        match value {
            Value::Array(elements) if name == "*" => elements.iter().any(|element| self.fits_at(way, element)),
            Value::Object(members) if name == "*" => members.values().any(|member| self.fits_at(way, member)),
            Value::Array(elements) => pointer::index(name)
                .and_then(|index| elements.get(index))
                .is_some_and(|element| self.fits_at(way, element)),
            Value::Object(members) => members.get(name).is_some_and(|member| self.fits_at(way, member)),
            _ => false,
        }
    }
}

/// The text is no JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongRule(String);

impl fmt::Display for WrongRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no JSON pointer: write one such as /errors/*/code", self.0)
    }
}

impl std::error::Error for WrongRule {}
