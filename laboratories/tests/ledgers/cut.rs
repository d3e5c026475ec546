//! The network: every second connection is cut, each at another byte.

use testkit::proxy::Way;

/// A request and its answer have fewer bytes than these.
const REQUEST: usize = 420;
const RESPONSE: usize = 700;

/// Where connection `number` is cut.
pub(crate) fn byte_of(number: usize) -> Option<(Way, usize)> {
    // 1,120 places; a step of 389 meets each of them, and neighbours are far apart.
    let place = (number / 2 * 389) % (REQUEST + RESPONSE);
    match place.checked_sub(REQUEST) {
        _ if number.is_multiple_of(2) => None,
        None => Some((Way::Request, place)),
        Some(place) => Some((Way::Response, place)),
    }
}
