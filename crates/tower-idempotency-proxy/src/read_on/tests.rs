use std::future::poll_fn;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::*;
use crate::places::Places;

/// Reads into so much room, and returns how much has come.
async fn read(stream: &mut ReadOn, room: usize) -> usize {
    let mut bytes = vec![0; room];
    let mut buffer = ReadBuf::new(&mut bytes);
    poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut buffer)).await.unwrap();
    buffer.filled().len()
}

#[tokio::test]
async fn the_end_has_come_where_a_read_that_had_room_has_got_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = ReadOn::new(stream, Places::with(1).take(None));
    assert!(stream.is_write_vectored());
    client.write_all(b"order").await.unwrap();
    for (room, expected) in [(0, 0), (3, 3), (0, 0), (9, 2)] {
        assert_eq!((read(&mut stream, room).await, stream.has_ended), (expected, false), "{room}");
    }
    drop(client);
    assert_eq!((read(&mut stream, 9).await, stream.has_ended), (0, true));
}
