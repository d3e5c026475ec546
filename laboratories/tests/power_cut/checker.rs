//! The tests of the rebuilding itself, on histories made by hand.

use bytes::Bytes;
use laboratories::disk::content::Content;
use laboratories::disk::log::Event;
use laboratories::disk::rebuild::{Disk, Image, Luck};
use testkit::Dice;

fn write(offset: u64, byte: u8, length: usize) -> Event {
    Event::Write { path: "d/f".into(), offset, data: Bytes::from(vec![byte; length]) }
}

fn begins(path: &str, number: u64) -> Event {
    Event::SyncBegins { path: path.into(), number }
}

/// Returns everything that these events can leave, as far as chance shows it.
fn left(events: &[Event]) -> Vec<Image> {
    let mut disk = Disk::default();
    events.iter().for_each(|event| disk.happens(event));
    let mut dice = Dice::new(1);
    (0..500).map(|_| disk.cut(Luck::draw(&mut dice), &mut dice)).collect()
}

/// Returns the events that make a directory and a file in it, and that make both durable if `durable`.
fn made(durable: bool) -> Vec<Event> {
    let made = [Event::MakeDirectory("d".into()), Event::Create("d/f".into())];
    let synced = [begins("d", 0), Event::SyncEnds { number: 0 }, begins("", 1), Event::SyncEnds { number: 1 }];
    made.into_iter().chain(synced.into_iter().filter(|_| durable)).collect()
}

fn content(image: &Image) -> Option<&Content> {
    image.get("d/f")?.as_ref()
}

/// Returns the bytes, with as many of the zeros at the end as there are.
fn bytes(image: &Image) -> Vec<u8> {
    let content = content(image).unwrap();
    let mut bytes = content.written();
    bytes.resize(content.len(), 0);
    bytes
}

#[test]
fn a_sync_covers_what_was_written_before_it_began() {
    let sync = [write(0, 1, 100), begins("d/f", 2), write(0, 2, 50), Event::SyncEnds { number: 2 }];
    let left = left(&[made(true), sync.to_vec()].concat());
    let first = |image: &Image| bytes(image)[0];
    assert!(left.iter().all(|image| bytes(image)[50..] == [1; 50]));
    assert!(left.iter().any(|image| first(image) == 1) && left.iter().any(|image| first(image) == 2));
}

#[test]
fn a_sync_that_has_not_returned_covers_nothing() {
    let left = left(&[made(true), vec![write(0, 1, 100), begins("d/f", 2)]].concat());
    assert!(left.iter().any(|image| content(image).unwrap().is_empty()));
    assert!(left.iter().any(|image| bytes(image) == [1; 100]));
}

#[test]
fn blocks_are_lost_one_by_one_and_each_has_been_what_it_is() {
    let writes = vec![write(0, 1, 8192), write(0, 2, 100), write(200, 3, 100)];
    let left = left(&[made(true), writes].concat());
    let mut seen = std::collections::BTreeSet::new();
    for image in &left {
        let bytes = bytes(image);
        let at = |index: usize| bytes.get(index).copied();
        assert!(at(200) != Some(3) || at(0) == Some(2), "a page is not newer in one place than in another");
        seen.insert((at(0), at(4096)));
    }
    assert!(seen.contains(&(Some(0), Some(1))) && seen.contains(&(Some(1), None)), "{seen:?}");
}

#[test]
fn a_truncation_took_place_or_did_not() {
    let synced = [write(0, 1, 8192), begins("d/f", 2), Event::SyncEnds { number: 2 }];
    let truncated = [Event::Truncate { path: "d/f".into(), length: 4096 }];
    let left = left(&[made(true), synced.to_vec(), truncated.to_vec()].concat());
    for length in [4096, 8192] {
        assert!(left.iter().any(|image| content(image).unwrap().len() == length), "{length}");
    }
}

#[test]
fn a_name_is_durable_with_its_directory_and_not_with_its_file() {
    let synced = [write(0, 1, 100), begins("d/f", 2), Event::SyncEnds { number: 2 }];
    let left = left(&[made(false), synced.to_vec()].concat());
    assert!(left.iter().any(|image| content(image).is_none()));
    assert!(left.iter().any(|image| content(image).is_some() && bytes(image) == [1; 100]));
}

#[test]
fn a_file_has_its_old_name_or_its_new_one() {
    let renamed = [Event::Rename { from: "d/f".into(), to: "d/g".into() }];
    let left = left(&[made(true), renamed.to_vec()].concat());
    assert!(left.iter().all(|image| image.contains_key("d/f") != image.contains_key("d/g")));
    assert!(left.iter().any(|image| image.contains_key("d/f")) && left.iter().any(|image| image.contains_key("d/g")));
}

#[test]
fn the_bytes_of_a_file_are_those_that_were_written() {
    let mut dice = Dice::new(1);
    let (mut content, mut expected) = (Content::default(), Vec::new());
    for _ in 0..2_000 {
        let (at, length) = (dice.below(40_000), dice.below(9_000));
        if dice.percent(30) {
            content.resize(at);
            expected.resize(at, 0);
        } else {
            let byte = u8::try_from(dice.below(2)).unwrap();
            content.overwrite(at, &vec![byte; length]);
            expected.resize(expected.len().max(at + length), 0);
            expected[at..at + length].fill(byte);
        }
        assert_eq!(content, Content::from(&*expected), "and a block of zeros is no block");
        let (mut written, length) = (content.written(), content.len());
        assert_ne!(written.last(), Some(&0));
        written.resize(length, 0);
        assert_eq!(written, expected);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    content.write(file.path()).unwrap();
    assert_eq!(std::fs::read(file.path()).unwrap(), expected);
}

#[test]
fn a_new_directory_has_no_names_of_an_old_one_in_its_place() {
    let removed = ["d/f", "d"].map(|path| Event::Remove(path.into()));
    let again = [Event::MakeDirectory("d".into()), Event::Create("d/g".into())];
    let left = left(&[made(true), removed.to_vec(), again.to_vec()].concat());
    assert!(left.iter().all(|image| !(image.contains_key("d/f") && image.contains_key("d/g"))));
    for names in [["d", "d/f"].as_slice(), &["d"], &["d", "d/g"], &[]] {
        assert!(left.iter().any(|image| image.keys().eq(names)), "{names:?}");
    }
}
