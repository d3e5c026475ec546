//! What the script makes of random writes is what `Write::apply_to` says, and the indexes have the same rows.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use testkit::Dice;
use testkit::dice::{number, seed};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::{Backend as _, Clocks, Expect, Kind, NewExpiry, NewFence, Row, Stamp, Token, Write};

use crate::lab::{Lab, id, lab, token};

/// 25 hours, in milliseconds.
const DAY: u64 = 25 * 3_600_000;

#[tokio::test]
async fn random_writes_make_of_rows_what_the_contract_says() {
    let Some(lab) = lab("what random writes make").await else { return };
    let seed = number("SEED").unwrap_or_else(seed);
    let mut random = Random { dice: Dice::new(seed), rows: BTreeMap::new(), sent: Vec::new() };
    for round in 0..number("ROUNDS").unwrap_or(1_500) {
        random.round(&lab, &format!("seed {seed}, round {round}")).await;
    }
}

struct Random {
    dice: Dice,
    rows: BTreeMap<RecordId, Row>,
    sent: Vec<Write>,
}

impl Random {
    /// Puts some writes, and compares all that can be read.
    async fn round(&mut self, lab: &Lab, at: &str) {
        let clocks = self.clocks();
        let mut writes: Vec<Write> = Vec::new();
        for _ in 0..=self.dice.below(3) {
            let write = self.write();
            if writes.iter().all(|other| other.id != write.id) {
                writes.push(write);
            }
        }
        let answer = lab.backend.put(clocks, &writes).await.unwrap();
        let moment = clocks.at(answer.now);
        for (write, answered) in writes.iter().zip(answer.rows) {
            if let Some(row) = write.apply_to(self.rows.get(&write.id), moment) {
                self.rows.insert(write.id, row);
            }
            let expected = self.rows.get(&write.id).filter(|row| !row.is_absent(moment.earliest)).cloned();
            assert_eq!(answered, expected, "{at}: {write:?}");
        }
        self.sent.extend(writes);
        self.compare(lab, at).await;
    }

    async fn compare(&mut self, lab: &Lab, at: &str) {
        let (clocks, limit) = (self.clocks(), 1 + self.dice.below(3));
        let ids: Vec<RecordId> = (0..4).map(id).collect();
        let live = |earliest| self.rows.values().filter(move |row| !row.is_absent(earliest)).cloned();
        let found = lab.backend.get(clocks, &ids).await.unwrap();
        let earliest = clocks.at(found.now).earliest;
        let there: Vec<Row> = live(earliest).collect();
        assert_eq!(found.rows.into_iter().flatten().collect::<Vec<_>>(), there, "{at}: get");

        let mut sessions = lab.backend.sessions(clocks).await.unwrap();
        sessions.rows.sort_by_key(|row| row.id);
        let earliest = clocks.at(sessions.now).earliest;
        let expected: Vec<Row> = live(earliest).filter(|row| row.kind == Kind::Session).collect();
        assert_eq!(sessions.rows, expected, "{at}: sessions");

        let scanned = lab.backend.scan(clocks, Some(id(0)), limit).await.unwrap();
        let earliest = clocks.at(scanned.now).earliest;
        let is_operation = |row: &Row| !matches!(row.kind, Kind::Released | Kind::Session | Kind::Disputed);
        let expected = live(earliest).filter(|row| row.id > id(0) && is_operation(row));
        assert_eq!(scanned.rows, expected.take(limit).collect::<Vec<_>>(), "{at}: scan");

        let alive = [id(100)];
        let listed = lab.backend.list(clocks, &alive, None, limit).await.unwrap();
        let earliest = clocks.at(listed.now).earliest;
        let mut expected: Vec<Row> = live(earliest).filter(|row| row.is_listed(earliest, &alive)).collect();
        expected.sort_by_key(|row| (row.began, row.id));
        expected.truncate(limit);
        assert_eq!(listed.rows, expected, "{at}: list");

        for row in self.rows.values() {
            let due = lab.due(row.id).unwrap_or_else(|| panic!("{at}: no sweep finds {row:?}"));
            assert!(due <= row.expires.as_millis() as f64, "{at}: a sweep finds {row:?} after {due}");
        }
    }

    /// Clocks up to 25 hours off, each on its own.
    fn clocks(&mut self) -> Clocks {
        let now = Timestamp::from(std::time::SystemTime::now()).as_millis();
        let mut off = || Timestamp::from_millis(now + self.dice.roll() % (2 * DAY) - DAY);
        Clocks { earliest: off(), latest: off() }
    }

    /// A write of one of four rows, or one that was sent before.
    fn write(&mut self) -> Write {
        let dice = &mut self.dice;
        if dice.percent(15) && !self.sent.is_empty() {
            return dice.pick(&self.sent[self.sent.len().saturating_sub(20)..]);
        }
        let claims = dice.percent(30);
        let row = id(dice.below(4) as u64);
        let current = self.rows.get(&row).map(|row| row.token);
        let expect = match (claims, current) {
            (true, _) | (false, None) => Expect::Absent,
            (false, Some(token)) if dice.percent(70) => Expect::Token(token),
            (false, Some(_)) if dice.percent(50) => Expect::Absent,
            (false, Some(_)) => Expect::Token(token()),
        };
        let kinds = [2, 3, 4, 5, 6, 7, 9, -3].map(Kind::of);
        let kind = match expect {
            Expect::Absent if claims => Kind::Running,
            Expect::Absent => dice.pick(&kinds),
            Expect::Token(_) => dice.pick(&[kinds.as_slice(), &[Kind::Running]].concat()),
        };
        // Fences up to 2⁶³.
        let fence = Fence(dice.roll() >> (1 + dice.below(60)));
        let fence = dice.pick(&[NewFence::Keep, NewFence::Exactly(fence), NewFence::Above(fence)]);
        let duration = |dice: &mut Dice| Duration::from_millis(dice.roll() % [2, 10_000, 2 * DAY][dice.below(3)]);
        let expires = match expect {
            Expect::Token(_) if dice.percent(40) => NewExpiry::Keep,
            _ => NewExpiry::In(duration(dice)),
        };
        Write {
            id: row,
            expect,
            token: Token(token().0),
            fence,
            kind,
            session: dice.percent(50).then(|| id(100 + dice.below(2) as u64)),
            until: dice.percent(50).then(|| duration(dice)),
            began: dice.pick(&[Stamp::Keep, Stamp::Now]),
            since: dice.pick(&[Stamp::Keep, Stamp::Now]),
            expires,
            state: Bytes::from(dice.roll().to_le_bytes()[..dice.below(9)].to_vec()),
        }
    }
}

/// A row that was renewed is entered in the index of the sweep at its first expiry, which costs its end less.
#[tokio::test]
async fn a_sweep_leaves_a_row_whose_expiry_is_later_by_now_and_deletes_it_then() {
    let Some(lab) = lab("that a sweep looks at the row").await else { return };
    let now = lab.backend.get(Clocks::default(), &[]).await.unwrap().now;
    let ago = |minutes: u64| Timestamp::from_millis(now.as_millis() - minutes * 60_000);
    let row = |fence, expires| Row { fence: Fence(fence), expires, ..row(1, Kind::Completed, ago(500)) };
    for (fence, minutes) in [(1, 180), (2, 120)] {
        let adopted = lab.backend.adopt(Clocks::default(), &[row(fence, ago(minutes))]).await.unwrap().rows;
        assert_eq!((adopted.len(), lab.due(id(1))), (1, Some(ago(180).as_millis() as f64)));
    }
    for (minutes, deleted, due) in [(150, 0, Some(120)), (111, 0, Some(120)), (109, 1, None)] {
        let clocks = Clocks { earliest: ago(minutes), ..Clocks::default() };
        assert_eq!(lab.backend.delete_expired(clocks, 10).await.unwrap(), deleted, "{minutes} minutes ago");
        assert_eq!(lab.due(id(1)), due.map(|minutes| ago(minutes).as_millis() as f64));
    }
}

/// A sweep leaves nothing of a row, in no index.
#[tokio::test]
async fn a_sweep_deletes_rows_and_all_entries_of_them() {
    let Some(lab) = lab("that a sweep deletes").await else { return };
    let answer = lab.backend.get(Clocks::default(), &[]).await.unwrap();
    let long_ago = |hours: u64| Timestamp::from_millis(answer.now.as_millis() - hours * 3_600_000);
    let row = |number: u64, kind| Row { expires: long_ago(1), ..row(number, kind, long_ago(9)) };
    let kinds = [1, 2, 3, 4, 5, 6, 7, 9].map(Kind::of);
    let rows: Vec<Row> = (0..600).map(|number| row(number, kinds[number as usize % kinds.len()])).collect();
    let adopted = lab.backend.adopt(Clocks::default(), &rows).await.unwrap().rows;
    assert_eq!(adopted.len(), 600);
    let again = lab.backend.adopt(Clocks::default(), &rows).await.unwrap().rows;
    assert!(again.is_empty(), "a fence that is not greater: {again:?}");
    let clocks = Clocks { earliest: long_ago(1), ..Clocks::default() };
    assert_eq!(lab.backend.delete_expired(clocks, 1_000).await.unwrap(), 0, "within the grace");
    assert_eq!(lab.backend.delete_expired(Clocks::default(), 7).await.unwrap(), 7);
    assert_eq!(lab.backend.delete_expired(Clocks::default(), 1_000).await.unwrap(), 593);
    let server = testkit::redis::shared_server("the indexes").unwrap();
    // The opening has tried a row, which has not expired yet.
    for (index, rows) in [("o", ":0"), ("i", ":0"), ("x", ":1"), ("s", ":0")] {
        let left = server.say(&format!("ZCARD ti:{{{}}}:{index}", lab.namespace));
        assert!(left.starts_with(rows), "{index} has {left}");
    }
    assert_eq!(lab.backend.get(Clocks::default(), &[id(1)]).await.unwrap().rows, [None]);
}

fn row(number: u64, kind: Kind, began: Timestamp) -> Row {
    Row {
        id: id(number),
        token: token(),
        fence: Fence(7),
        kind,
        session: None,
        until: None,
        began,
        since: began,
        expires: began,
        state: Bytes::new(),
    }
}
