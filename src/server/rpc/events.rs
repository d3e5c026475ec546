//! The events of a `text/event-stream` (HTML Standard, section 9.2).

use bytes::{Bytes, BytesMut};

/// Divides a stream into its events. What they have is passed on as it came, comments and fields of later releases
/// included.
#[derive(Default)]
pub(crate) struct Events {
    read: BytesMut,
    /// No event ends before this place.
    looked_at: usize,
}

impl Events {
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.read.extend_from_slice(data);
    }

    /// Takes the next event, with the blank line that ends it.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let from = self.looked_at.saturating_sub(3);
        let Some(length) = end_of_event(&self.read[from..]).map(|end| from + end) else {
            self.looked_at = self.read.len();
            return None;
        };
        self.looked_at = 0;
        Some(self.read.split_to(length).freeze())
    }

    /// Returns what has come of an event that has not ended.
    pub(crate) fn rest(self) -> Bytes {
        self.read.freeze()
    }
}

/// Returns where the first blank line ends. A line ends with CR LF, LF or CR. A CR at the end may be a part of CR LF.
fn end_of_event(bytes: &[u8]) -> Option<usize> {
    let line_end = |at: usize| match bytes.get(at..)? {
        [b'\r', b'\n', ..] => Some(at + 2),
        [b'\r', _, ..] | [b'\n', ..] => Some(at + 1),
        _ => None,
    };
    (0..bytes.len()).find_map(|at| line_end(line_end(at)?))
}

/// Returns the data of an event, or `None` if it has none, such as a comment.
pub(crate) fn data(event: &[u8]) -> Option<Vec<u8>> {
    // A stream may begin with a byte order mark.
    let event = event.strip_prefix(b"\xef\xbb\xbf").unwrap_or(event);
    let lines = event.split(|byte| matches!(byte, b'\n' | b'\r'));
    let values = lines.filter_map(|line| line.strip_prefix(b"data:"));
    let values: Vec<_> = values.map(|value| value.strip_prefix(b" ").unwrap_or(value)).collect();
    (!values.is_empty()).then(|| values.join(&b'\n'))
}

/// Returns an event with this data.
pub(crate) fn event(data: &[u8]) -> Bytes {
    let mut event = b"event: message\n".to_vec();
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(line);
        event.push(b'\n');
    }
    event.push(b'\n');
    event.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a stream that comes in chunks of this length.
    fn read(stream: &[u8], chunk: usize) -> (Vec<Bytes>, Bytes) {
        let (mut events, mut found) = (Events::default(), Vec::new());
        for chunk in stream.chunks(chunk) {
            events.push(chunk);
            found.extend(std::iter::from_fn(|| events.next()));
        }
        (found, events.rest())
    }

    #[test]
    fn a_stream_is_divided_at_blank_lines_however_it_comes() {
        for end in ["\n", "\r\n", "\r"] {
            let stream =
                format!(": a{end}{end}id: 1{end}data: b{end}data:c{end}{end}data: d{end}{end}").replace("CR", "");
            let whole = read(stream.as_bytes(), usize::MAX).0;
            for chunk in 1..stream.len() {
                let (found, rest) = read(stream.as_bytes(), chunk);
                // A CR at the end may be half of a line's end.
                let is_open = end == "\r";
                assert_eq!(
                    (found.len(), rest.is_empty()),
                    if is_open { (2, false) } else { (3, true) },
                    "{end:?} {chunk}"
                );
                assert_eq!([&found.concat()[..], &rest].concat(), stream.as_bytes(), "nothing is lost");
                assert_eq!(found, whole, "{end:?} {chunk}");
            }
            assert_eq!([data(&whole[0]), data(&whole[1])], [None, Some(b"b\nc".to_vec())]);
        }
        let (found, rest) = read(b"data: a\n\ndata: cut", 1);
        assert_eq!((found.len(), &rest[..]), (1, &b"data: cut"[..]));
    }

    #[test]
    fn an_event_has_the_data_that_it_was_made_of() {
        for text in [&b"{\"id\":1}"[..], b"two\nlines", b"", b" "] {
            assert_eq!(data(&event(text)).as_deref(), Some(text));
            assert_eq!(read(&event(text), 1).0, [event(text)]);
        }
    }
}
