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

/// A connection from which such bytes come, so many at a time.
struct Coming(Vec<u8>, usize);

impl Read for Coming {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let at_a_time = self.1.min(self.0.len()).min(buffer.remaining());
        let rest = self.0.split_off(at_a_time);
        buffer.put_slice(&std::mem::replace(&mut self.0, rest));
        Poll::Ready(Ok(()))
    }
}

// Seeded faults: a frame's content is read as a head; a head that is split is lost.
#[test]
fn a_head_of_http_2_is_noted_wherever_its_frame_is_split() {
    let frame = |kind: u8, content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0], &[0, 0, 0, 1], content].concat()
    };
    let looks_like_one = frame(HEADERS, b"a").repeat(2_000);
    for (frames, expected) in [
        (vec![frame(4, &[]), frame(8, &[0; 4]), frame(3, &[0; 4])], false),
        (vec![frame(4, &[]), frame(HEADERS, b"a"), frame(3, &[0; 4])], true),
        (vec![frame(0, &looks_like_one), frame(7, &[0; 8])], false),
        (vec![frame(0, &looks_like_one), frame(HEADERS, &[])], true),
        (vec![frame(HEADERS, b"a")[..8].to_vec()], false),
    ] {
        for at_a_time in [1, 3, 9, 10, CHUNK, 2 * CHUNK] {
            let (bytes, has_head) = (frames.concat(), Arc::new(AtomicBool::new(false)));
            let mut connection = Reading::noting(Coming(bytes.clone(), at_a_time), Arc::clone(&has_head));
            let (mut passed, cx) = (Vec::new(), &mut Context::from_waker(Waker::noop()));
            while passed.len() < bytes.len() {
                let mut room = [0; 3 * CHUNK];
                let mut read = ReadBuf::new(&mut room);
                assert!(Pin::new(&mut connection).poll_read(cx, read.unfilled()).is_ready());
                passed.extend_from_slice(read.filled());
            }
            assert_eq!(
                (passed == bytes, has_head.load(Ordering::Relaxed)),
                (true, expected),
                "{at_a_time}: {frames:?}"
            );
        }
    }
}
