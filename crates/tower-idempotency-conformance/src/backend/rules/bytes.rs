//! Bytes that mean nothing to the database, and must come back as they were.

use bytes::Bytes;
use tower_idempotency::RecordId;
use tower_idempotency_shared::{Backend, Expect, Kind, Token, Write};

use crate::backend::rule::Rule;
use crate::backend::sample::{HOUR, claim, complete, session};
use crate::backend::subject::BackendSubject;
use crate::fresh::{fresh_id, random};

fn brief(state: &Bytes) -> String {
    format!("{} bytes that begin with {:02x?}", state.len(), state.get(..8).unwrap_or(state))
}

/// Any bytes are a state, from none to a little more than a mebibyte.
pub(crate) async fn state_is_kept_to_the_byte<B: Backend>(subject: &BackendSubject<B>) {
    let advice =
        "keep the state in a column of bytes, not of text, without a limit below 1 MiB and 64 KiB, and don't trim it";
    let rule = Rule::new(subject, "state_is_kept_to_the_byte", advice);
    let mebibyte = 1 << 20;
    let lengths = [0, 1, 255, 8_192, 65_535, 65_536, mebibyte, mebibyte + 65_536, 3, 0];
    // Every byte, in every neighbourhood: no text in any encoding.
    let of_length =
        |length: usize| -> Vec<u8> { (0..length).map(|at| (at ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0]).collect() };
    let odd = [&[0, 0, 0][..], b"\\x00", b"  a ", &[0xff, 0xfe, 0x00, 0x0a], b"\r\n"].map(<[u8]>::to_vec);
    let states: Vec<Vec<u8>> = lengths.map(of_length).into_iter().chain(odd).collect();
    let row = rule.done(&claim(fresh_id())).await;
    let mut token = row.token;
    for together in [false, true] {
        for state in &states {
            let (expect, state) = (Expect::Token(token), Bytes::copy_from_slice(state));
            let write = Write { expect, kind: Kind::Interrupted, state, ..complete(&row) };
            let put = rule.done_in(together, &write).await.0.state;
            let got = rule.get(row.id).await.map(|row| row.state);
            for (by, state) in [("put", Some(put)), ("get", got)] {
                rule.check(state.as_ref() == Some(&write.state), || {
                    let (was, is) = (brief(&write.state), state.as_ref().map(brief));
                    format!("{was} were written, and {by} answered {is:?}")
                });
            }
            token = write.token;
        }
    }
}

/// Ids, tokens and the ids of sessions are any bytes, and all of them count.
pub(crate) async fn ids_and_tokens_are_kept_to_the_byte<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "keep ids (32 bytes), tokens (16 bytes) and the ids of sessions as bytes, and compare all of them";
    let rule = Rule::new(subject, "ids_and_tokens_are_kept_to_the_byte", advice);
    let base: [u8; 32] = random();
    let with = |at: usize, byte| {
        let mut bytes = base;
        bytes[at] = byte;
        RecordId::from_bytes(bytes)
    };
    // Ids that differ in one byte only, at the beginning, in the middle and at the end.
    let ids = [0, 15, 31].into_iter().flat_map(|at| [0x00, 0x27, 0x5c, 0x7f, 0x80, 0xff].map(|byte| with(at, byte)));
    let mut ids: Vec<RecordId> = ids.collect();
    // Where the base has such a byte, two of them are the same.
    ids.sort();
    ids.dedup();
    for id in &ids {
        let row = rule.done(&Write { session: Some(with(31, 0xff)), ..claim(*id) }).await;
        rule.check(row.id == *id, || format!("{id} was written, and {} was answered", row.id));
        rule.check(row.session == Some(with(31, 0xff)), || format!("its session came back as {:?}", row.session));
    }
    let random: [u8; 16] = random();
    for (at, byte) in [(0, 0x00), (0, 0xff), (15, 0x00), (15, 0xff), (7, 0x27)] {
        let mut token = random;
        token[at] = byte;
        let mut other = token;
        other[at] ^= 1;
        let row = rule.done(&Write { token: Token(token), ..claim(fresh_id()) }).await;
        rule.refused(&Write { expect: Expect::Token(Token(other)), ..complete(&row) }).await;
        rule.done(&complete(&row)).await;
    }
}

/// The number of a kind is kept, whether this release knows it or not.
pub(crate) async fn kinds_are_kept_even_unknown_ones<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "keep `Kind::number` in a signed column of 16 bits or more, and read it by `Kind::of`: rows of later releases \
                  must survive this one";
    let rule = Rule::new(subject, "kinds_are_kept_even_unknown_ones", advice);
    for number in [1, 2, 3, 4, 5, 6, 7, 8, 0, -1, 255, 256, i16::MAX, i16::MIN] {
        let kind = Kind::of(number);
        for together in [false, true] {
            let (row, _) = rule.done_in(together, &Write { kind, ..session(fresh_id(), HOUR) }).await;
            let got = rule.get(row.id).await.map(|row| row.kind);
            rule.check(row.kind == kind && got == Some(kind), || {
                format!("{kind:?} was written; put answered {:?}, and get {got:?}", row.kind)
            });
            let answered = rule.refused(&claim(row.id)).await.map(|row| row.kind);
            rule.check(answered == Some(kind), || format!("a refused put answered {answered:?} for {kind:?}"));
        }
    }
}
