//! Bytes that mean nothing to the store, and must come back as they were.

use std::sync::Arc;

use bytes::Bytes;
use tower_idempotency::internals::{
    Cause, Claim, ClaimPolicy, Described, Operation, Origin, Record, State, Transition,
};
use tower_idempotency::store::Store;
use tower_idempotency::{Fingerprint, RecordId};

use crate::fresh::{fresh_id, random};
use crate::store::rule::Rule;
use crate::store::sample::{HOUR, answer, claim, complete, consume, hold, interrupt, reclaim, settle, wish};
use crate::store::subject::StoreSubject;

/// Checks what a store has of some records.
async fn stand<St: Store>(rule: &Rule<'_, St>, store: &St, by: &str, records: &[(RecordId, Record)]) {
    for (id, record) in records {
        let loaded = rule.load_by(store, *id).await;
        // A record of a long outcome is too long for a message.
        rule.check(loaded.as_ref() == Some(record), || {
            let (was, is) = (brief(Some(record)), brief(loaded.as_ref()));
            format!("{was} was answered, and {by} has {is}")
        });
    }
}

fn brief(record: Option<&Record>) -> String {
    match record {
        Some(Record { state: State::Completed { outcome }, fence, .. }) => {
            let first = outcome.get(..outcome.len().min(16));
            format!("an outcome of {} bytes that begins with {first:02x?}, under {fence}", outcome.len())
        }
        record => format!("{record:?}"),
    }
}

/// Checks the records in this process, in another, and after a reopening.
async fn stand_everywhere<St: Store>(rule: &Rule<'_, St>, records: &[(RecordId, Record)]) {
    stand(rule, &rule.subject.store, "the store", records).await;
    stand(rule, rule.other(), "another process", records).await;
    if let Some(reopened) = rule.reopened().await {
        stand(rule, &reopened, "a store that was opened again", records).await;
    }
}

/// Any bytes are an outcome, from none to the longest: it is replayed to the byte.
pub(crate) async fn outcomes_are_kept_to_the_byte<St: Store>(subject: &StoreSubject<St>) {
    let advice = "keep outcomes as bytes, in chunks if they are long, without a limit of the store's own";
    let rule = Rule::new(subject, "outcomes_are_kept_to_the_byte", advice);
    let mut outcomes: Vec<Bytes> = vec!["\\x00".into(), "  a ".into(), vec![0xff, 0xfe, 0, 10].into(), "\r\n".into()];
    let lengths = [0, 1, 2, 255, 256, 3_072, 3_073, 4_000, 4_095, 4_096, 4_097, 8_000, 8_001, 65_535, 65_536, 1 << 20];
    for length in lengths.into_iter().chain([subject.longest_outcome]) {
        // Every byte, in every neighbourhood: no text in any encoding.
        let bytes = (0..length).map(|at: usize| (at ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0]);
        outcomes.push(bytes.collect::<Vec<u8>>().into());
    }
    let mut records = Vec::new();
    for outcome in outcomes {
        let id = fresh_id();
        let run = rule.claimed(id).await;
        let completed = rule.made(id, &complete(hold(id, &run), outcome.clone())).await;
        let replayed = rule.refused(id, &claim()).await;
        let settled_id = fresh_id();
        let interrupted = rule.interrupted(settled_id).await;
        let settled = rule.made(settled_id, &settle(interrupted.fence, outcome.clone())).await;
        for (by, record) in [("to complete", Some(&completed)), ("to claim again", replayed.as_ref())]
            .into_iter()
            .chain([("to settle", Some(&settled))])
        {
            let is_so = record.is_some_and(|record| record.state == State::Completed { outcome: outcome.clone() });
            rule.check(is_so, || format!("{} bytes were written, and {by} answered {}", outcome.len(), brief(record)));
        }
        records.extend([(id, completed), (settled_id, settled)]);
    }
    stand_everywhere(&rule, &records).await;
}

/// Whatever a record says in addition to its outcome is kept: fingerprint, origin, attempts, statuses.
pub(crate) async fn what_a_record_says_is_kept<St: Store>(subject: &StoreSubject<St>) {
    use ClaimPolicy::{Ask, Refuse, Rerun, Unreadable};
    let advice = "keep the whole record, as wide as its types are";
    let rule = Rule::new(subject, "what_a_record_says_is_kept", advice);
    let everything = Described {
        scope: Some(random()),
        label: Some("POST /charges?amount=1&name=Ä\u{0}\u{1f600}\"'\\ ".repeat(20)),
        trace: Some([0xff; 16]),
    };
    let mut records = Vec::new();
    for origin in [None, Some(Described::default()), Some(everything)] {
        let origin = Origin(origin.map(Arc::new));
        let statuses = [0, 100, 200, 599, 256, u16::MAX];
        for (status, policy) in statuses.into_iter().zip([Unreadable, Refuse, Ask, Rerun].into_iter().cycle()) {
            let id = fresh_id();
            let fingerprint = Fingerprint::builder(&id).field("body", &random::<32>()).credential("who", b"a client");
            let operation = Operation { id, fingerprint: fingerprint.finish(), origin: origin.clone() };
            let wish = Claim { operation, policy, ..wish() };
            let run = rule.made(id, &Transition::Claim(wish.clone())).await;
            says(&rule, &run, &wish, 1);
            let first = rule.made(id, &answer(run.fence, status)).await;
            let again = rule.made(id, &reclaim(first.fence)).await;
            says(&rule, &again, &wish, 2);
            let cut = rule.made(id, &interrupt(again.fence)).await;
            let third = rule.made(id, &reclaim(cut.fence)).await;
            says(&rule, &third, &wish, 3);
            let consumed = rule.made(id, &consume(hold(id, &third), status)).await;
            says(&rule, &consumed, &wish, 3);
            let states = [
                (first.state, State::Interrupted { policy, run: run.fence, cause: Cause::Answered(status) }),
                (cut.state, State::Interrupted { policy: Refuse, run: again.fence, cause: Cause::Unknown }),
                (consumed.state.clone(), State::Consumed { status }),
                (third.state, State::Running { policy: Refuse, interrupted_retention: HOUR }),
            ];
            for (is, should) in states {
                rule.check(is == should, || format!("the state {should:?} came back as {is:?}"));
            }
            records.push((id, consumed));
        }
    }
    stand_everywhere(&rule, &records).await;
}

fn says<St: Store>(rule: &Rule<'_, St>, record: &Record, wish: &Claim, attempt: u32) {
    let Operation { fingerprint, origin, .. } = &wish.operation;
    let is_so = (&record.fingerprint, &record.origin, record.attempt) == (fingerprint, origin, attempt);
    rule.check(is_so, || format!("attempt {attempt} of {wish:?} is {record:?}"));
}

/// Ids are any bytes, and all of them count.
pub(crate) async fn ids_are_told_apart_by_every_byte<St: Store>(subject: &StoreSubject<St>) {
    let advice = "use all 32 bytes of an id as the key of its record, and of all that belongs to it";
    let rule = Rule::new(subject, "ids_are_told_apart_by_every_byte", advice);
    let base: [u8; 32] = random();
    let with = |at: usize, byte| {
        let mut bytes = base;
        bytes[at] = byte;
        RecordId::from_bytes(bytes)
    };
    let ids = [0, 7, 15, 16, 30, 31].into_iter();
    let mut ids: Vec<RecordId> = ids.flat_map(|at| [0x00, 0x27, 0x5c, 0x80, 0xff].map(|byte| with(at, byte))).collect();
    // Where the base has such a byte, two of them are the same.
    ids.sort();
    ids.dedup();
    let mut records = Vec::new();
    for id in ids {
        let run = rule.claimed(id).await;
        let outcome = id.as_bytes().repeat(200);
        records.push((id, rule.made(id, &complete(hold(id, &run), outcome)).await));
    }
    stand_everywhere(&rule, &records).await;
}
