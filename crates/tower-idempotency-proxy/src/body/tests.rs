use std::convert::Infallible;
use std::sync::atomic::AtomicUsize;
use std::task::{Wake, Waker};

use futures_util::stream::unfold;
use http::HeaderMap;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

type Frames = Vec<Result<Frame<Bytes>, BoxError>>;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn body(frames: Frames) -> impl Body<Data = Bytes, Error = BoxError> + Unpin {
    StreamBody::new(futures_util::stream::iter(frames))
}

fn data() -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from("order")))
}

#[tokio::test(start_paused = true)]
async fn a_body_may_pause_for_so_long_each_time_it_is_waited_for() {
    let (send, frames) = mpsc::channel(1);
    let mut held = Held::new(StreamBody::new(ReceiverStream::new(frames)), false, secs(10), Arc::new(()));
    let is_begun = held.is_begun();
    for number in 0..3 {
        // While it is not waited for, any time may go by.
        sleep(secs(30)).await;
        assert_eq!(is_begun.load(Ordering::Relaxed), number > 0);
        let later = async {
            sleep(secs(9)).await;
            send.send(data()).await.unwrap();
        };
        let (frame, ()) = tokio::join!(held.frame(), later);
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "order");
    }
    let began = Instant::now();
    let error = held.frame().await.unwrap().unwrap_err();
    assert_eq!((error.to_string().as_str(), began.elapsed()), ("nothing has come for too long", secs(10)));
}

#[tokio::test]
async fn trailers_are_passed_on_unless_they_are_left_out() {
    for has_trailers in [true, false] {
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
        let held = Held::new(body(vec![data(), Ok(Frame::trailers(trailers.clone()))]), false, secs(10), Arc::new(()));
        let whole = if has_trailers { held } else { held.without_trailers() }.collect().await.unwrap();
        assert_eq!(whole.trailers().cloned(), has_trailers.then_some(trailers));
        assert_eq!(whole.to_bytes(), "order");
    }
}

#[tokio::test]
async fn a_body_that_says_its_end_has_broken_off_without_it() {
    // A stream of frames never says that it is at its end.
    for must_say_its_end in [true, false] {
        let collected = Whole::new(body(vec![data()]), must_say_its_end).collect().await;
        assert_eq!(collected.is_err(), must_say_its_end);
        let collected = Whole::new(Full::new(Bytes::from("order")), must_say_its_end).collect().await;
        assert_eq!(collected.unwrap().to_bytes(), "order");
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_error_comes_one_turn_after_what_was_there_before() {
    let mut flushed = Flushed::new(body(vec![data(), Err("it broke".into())]), [None, None]);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut poll = || {
        let frame = Pin::new(&mut flushed).poll_frame(&mut Context::from_waker(&waker));
        (
            frame.map(|frame| frame.map(|frame| frame.map(drop).map_err(|error| error.to_string()))),
            woken.0.load(Ordering::Relaxed),
        )
    };
    assert_eq!(poll(), (Poll::Ready(Some(Ok(()))), 0));
    // It is asked again by itself.
    assert_eq!(poll(), (Poll::Pending, 1));
    assert_eq!(poll(), (Poll::Ready(Some(Err("it broke".to_owned()))), 1));
    assert_eq!(poll(), (Poll::Ready(None), 1));
}

#[tokio::test]
async fn where_a_body_ends_and_how_long_it_is_is_what_it_says_itself() {
    fn said(body: &impl Body) -> (bool, Option<u64>) {
        (body.is_end_stream(), body.size_hint().exact())
    }
    for (body, expected) in [("", (true, Some(0))), ("order", (false, Some(5)))] {
        let body = || Full::new(Bytes::from(body));
        assert_eq!(said(&Whole::new(body(), true)), expected);
        assert_eq!(said(&Flushed::new(body(), [None, None])), expected);
        assert_eq!(said(&Held::new(body(), true, secs(10), Arc::new(()))), expected);
    }
}

// Seeded faults: a frame is passed on whole; a portion keeps the whole; what is taken is free before the end.
#[tokio::test]
async fn an_answer_goes_on_in_portions_that_keep_nothing_else() {
    let places = crate::places::Places::with(3);
    for lengths in [&[1][..], &[PORTION], &[PORTION + 1], &[0, 5, 3 * PORTION, 1 << 20, 7]] {
        let frames: Vec<Bytes> = lengths.iter().zip(1..).map(|(length, byte)| vec![byte; *length].into()).collect();
        let (expected, kept) = (frames.concat(), frames.clone());
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
        let frames = frames.into_iter().map(|data| Ok(Frame::data(data)));
        let all = body(frames.chain([Ok(Frame::trailers(trailers.clone()))]).collect());
        let mut flushed = Flushed::new(all, [places.take(None), places.take_many(None, 2)]);
        let (mut got, mut end) = (Vec::new(), None);
        while let Some(frame) = flushed.frame().await {
            assert!(places.are_taken());
            match frame.unwrap().into_data() {
                Ok(data) => {
                    assert!(data.len() <= PORTION, "{lengths:?}");
                    let is_whole = kept.iter().any(|whole| whole.len() == data.len());
                    assert!(is_whole || data.is_unique(), "{lengths:?}");
                    got.extend_from_slice(&data);
                }
                Err(frame) => end = frame.into_trailers().ok(),
            }
        }
        assert_eq!((got == expected, end), (true, Some(trailers)), "{lengths:?}");
        drop(flushed);
        assert!(places.take_many(None, 3).is_some());
    }
}

/// A body that breaks at its end.
struct Breaks;

impl Body for Breaks {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Err("it broke".into())))
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

#[test]
fn a_body_has_not_ended_while_its_error_is_yet_to_come() {
    let mut flushed = Flushed::new(Breaks, [None, None]);
    assert!(Pin::new(&mut flushed).poll_frame(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(!flushed.is_end_stream());
}

// Seeded faults: the pauses are one time together; each frame is waited for as long as it takes; the first wait
// begins before the first frame is asked for.
#[tokio::test(start_paused = true)]
async fn a_body_may_take_longer_than_a_pause_may() {
    let within = Duration::from_secs(10);
    for (asked_after, pause, is_whole) in [(0, 6, true), (6, 6, true), (11, 6, true), (0, 11, false), (6, 11, false)] {
        let (asked_after, pause) = (Duration::from_secs(asked_after), Duration::from_secs(pause));
        let frames = unfold(0, |sent| async move {
            if sent == 5 {
                return None;
            }
            sleep(pause).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"part"))), sent + 1))
        });
        let body = Held::new(StreamBody::new(Box::pin(frames)), false, within, Arc::new(()));
        sleep(asked_after).await;
        assert_eq!(body.collect().await.is_ok(), is_whole, "{pause:?}, asked after {asked_after:?}");
    }
}
