//! Waits for what a [`Notify`] announces.

use tokio::sync::Notify;

use crate::laboratory::point;

/// Returns the first value that `look` gives. It looks at once, and again after each notification.
pub(crate) async fn until<T>(changed: &Notify, mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        let changed = changed.notified();
        tokio::pin!(changed);
        // From here on no notification is missed, so it looks afterwards.
        changed.as_mut().enable();
        point();
        if let Some(value) = look() {
            return value;
        }
        point();
        changed.await;
    }
}
