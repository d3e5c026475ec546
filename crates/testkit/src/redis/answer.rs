//! A server's answer to one command.

use std::io::{self, BufRead, Read as _};

/// Reads one answer, as it is on the wire. If the connection ends before, it is what has come until then.
///
/// The end of the connection is no sign that the answer is whole: a process that the server has forked, to write a
/// file, has it open until the file is written.
pub(super) fn read(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let (mut answer, mut left) = (Vec::new(), 1_u64);
    while left > 0 {
        let start = answer.len();
        if from.read_until(b'\n', &mut answer)? == 0 {
            break;
        }
        left -= 1;
        // A length of -1 is that of nothing.
        let length: Option<u64> = String::from_utf8_lossy(&answer[start + 1..]).trim().parse().ok();
        match (answer[start], length) {
            (b'*', Some(elements)) => left += elements,
            // The bytes may have ends of lines, and have one behind them.
            (b'$', Some(length)) => _ = from.take(length + 2).read_to_end(&mut answer)?,
            _ => {}
        }
    }
    Ok(answer)
}
