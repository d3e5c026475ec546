//! Finds out the origin of an operation, which its record keeps for operators.

use http::request::Parts;
use http::{HeaderMap, HeaderName};

use crate::key::Scope;
use crate::record::{Described, Origin};
use crate::server::header::lines;
use crate::server::options::Options;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Returns the origin of the operation of a request whose key belongs to `scope`. This calls the application's `label`
/// function.
pub(crate) fn origin(options: &Options, parts: &Parts, scope: Option<&Scope>) -> Origin {
    let label = options.label.as_ref().and_then(|label| Described::label(&label(parts)?));
    Origin::of(Described { scope: scope.map(Scope::digest), label, trace: trace_id(&parts.headers) })
}

/// Returns the trace id of a request (W3C Trace Context, section 3.2), if it has one that is valid.
fn trace_id(headers: &HeaderMap) -> Option<[u8; 16]> {
    let mut values = lines(headers, TRACEPARENT);
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let mut fields = value.split('-');
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let mut field = |length| fields.next().filter(|field| field.len() == length && field.bytes().all(is_hex));
    let (version, trace, _parent, _flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
    // Version `ff` is invalid. A later version begins as the first does.
    let id = Some(trace).filter(|_| version != "ff").and_then(|trace| u128::from_str_radix(trace, 16).ok());
    id.filter(|id| *id != 0).map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_trace_id_is_taken_from_one_valid_header_only() {
        const ID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let of = |lines: &[&'static str]| {
            let lines = lines.iter().map(|line| (TRACEPARENT, HeaderValue::from_static(line)));
            trace_id(&HeaderMap::from_iter(lines))
        };
        assert_eq!(of(&[ID]), Some(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes()));
        // A later version may have more fields.
        assert!(of(&["01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"]).is_some());
        let others: [&[&'static str]; 9] = [
            &[],
            &[ID, ID],
            &["00-00000000000000000000000000000000-b7ad6b7169203331-01"],
            &["00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"],
            &["00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            &["ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            &["00-0af7651916cd43dd8448eb211c8031-b7ad6b7169203331-01"],
            &["zz-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            &["00-0af7651916cd43dd8448eb211c80319c"],
        ];
        for other in others {
            assert_eq!(of(other), None, "{other:?}");
        }
    }
}
