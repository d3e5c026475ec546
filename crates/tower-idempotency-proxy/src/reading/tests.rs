use std::task::Waker;

use super::*;

/// A connection each of whose writes fails so. It counts them.
struct Failing(ErrorKind, usize);

impl Failing {
    fn write(&mut self) -> Poll<io::Result<usize>> {
        self.1 += 1;
        Poll::Ready(Err(self.0.into()))
    }
}

impl Write for Failing {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.write()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write()
    }

    fn is_write_vectored(&self) -> bool {
        self.0 == ErrorKind::BrokenPipe
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn once_the_service_has_closed_what_is_sent_is_dropped_and_any_other_error_is_one() {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut};
    let cx = &mut Context::from_waker(Waker::noop());
    for (kind, is_dropped) in
        [(BrokenPipe, true), (ConnectionReset, true), (ConnectionAborted, false), (TimedOut, false)]
    {
        for is_vectored in [false, true] {
            let mut connection = Reading::new(Failing(kind, 0));
            assert_eq!(connection.is_write_vectored(), kind == BrokenPipe);
            for _ in 0..2 {
                let connection = Pin::new(&mut connection);
                let written = match is_vectored {
                    true => connection.poll_write_vectored(cx, &[IoSlice::new(b"or"), IoSlice::new(b"der")]),
                    false => connection.poll_write(cx, b"order"),
                };
                let Poll::Ready(written) = written else { panic!("it is not ready") };
                assert_eq!(written.map_err(|error| error.kind()), if is_dropped { Ok(5) } else { Err(kind) });
            }
            // Where the service takes no more, nothing more is written.
            assert_eq!(connection.inner.1, if is_dropped { 1 } else { 2 }, "{kind:?}");
        }
    }
}
