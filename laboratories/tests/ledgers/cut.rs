//! The network: every second connection is cut, each at another byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::proxy::{End, Fate, Pass, Way};

/// A request and its answer have fewer bytes than these.
const REQUEST: usize = 420;
const RESPONSE: usize = 700;

/// A connection that breaks as soon as so many bytes of a direction were passed on.
#[derive(Debug)]
pub(crate) struct Cut {
    at: Option<(Way, usize)>,
    passed: AtomicUsize,
    made: Arc<AtomicUsize>,
}

/// What becomes of connection `number`. `made` counts the cuts.
pub(crate) fn fate(number: usize, made: &Arc<AtomicUsize>) -> Cut {
    // 1,120 places; a step of 389 meets each of them, and neighbours are far apart.
    let place = (number / 2 * 389) % (REQUEST + RESPONSE);
    let at = match place.checked_sub(REQUEST) {
        _ if number.is_multiple_of(2) => None,
        None => Some((Way::Request, place)),
        Some(place) => Some((Way::Response, place)),
    };
    Cut { at, passed: AtomicUsize::new(0), made: Arc::clone(made) }
}

impl Fate for Cut {
    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        let Some((_, at)) = self.at.filter(|(broken, _)| *broken == way) else { return Pass::On };
        let left = at - self.passed.fetch_add(bytes.len(), Ordering::SeqCst).min(at);
        if left >= bytes.len() {
            return Pass::On;
        }
        self.made.fetch_add(1, Ordering::SeqCst);
        Pass::Cut(left, End::Rst)
    }
}
