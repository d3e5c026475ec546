//! A directory as a power cut would have left it.
//!
//! Durable are the bytes and lengths at the beginning of a sync of the file that has returned since, and the names at
//! the beginning of such a sync of their directory. Chance decides on the rest:
//! - each unsynced block is as it was at some moment since it was last synced, independently of the other blocks of the
//!   same write. Blocks have 4 KiB, as in the page cache, or 512 bytes, the size that a disk writes in one chunk;
//! - each unsynced truncation took place or did not;
//! - each unsynced change of a name took place or did not, or only the first few of them did, as with a journal. A sync
//!   of a file does not make its name durable.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use bytes::Bytes;
use testkit::Dice;

use super::content::Content;
use super::log::Event;

/// Files, by their path; `None` for a directory.
pub type Image = BTreeMap<String, Option<Content>>;

/// Reads a directory.
pub fn read_image(directory: &Path) -> Image {
    let mut image = Image::new();
    let mut unread = vec![String::new()];
    while let Some(path) = unread.pop() {
        for entry in fs::read_dir(directory.join(&path)).expect("a directory") {
            let entry = entry.expect("it can be read");
            let name = entry.file_name().into_string().expect("names of the laboratory are text");
            let below = if path.is_empty() { name } else { format!("{path}/{name}") };
            let is_directory = entry.file_type().expect("it has one").is_dir();
            image.insert(below.clone(), (!is_directory).then(|| Content::read(&entry.path()).expect("a file")));
            if is_directory {
                unread.push(below);
            }
        }
    }
    image
}

/// Writes a directory.
pub fn write_image(image: &Image, directory: &Path) {
    // Parents come first, as they sort.
    for (path, content) in image {
        let path = directory.join(path);
        match content {
            Some(content) => content.write(&path).expect("there is room"),
            None => fs::create_dir(path).expect("its parent is there"),
        }
    }
}

/// The chances of unsynced changes to survive.
#[derive(Debug, Clone, Copy)]
pub struct Luck {
    /// The bytes that are written in one chunk.
    block: usize,
    /// The percentage of unsynced blocks that have changed at all.
    blocks: u64,
    /// `true` if names change in order.
    journal: bool,
    /// The percentage of changes of names that took place, if they don't change in order.
    names: u64,
}

impl Luck {
    pub fn draw(dice: &mut Dice) -> Self {
        let of = |dice: &mut Dice| [0, 10, 50, 90, 100][dice.below(5)];
        let block = if dice.percent(25) { 512 } else { 4096 };
        Self { block, blocks: of(dice), journal: dice.percent(50), names: of(dice) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    File(usize),
}

type Names = BTreeMap<String, Node>;

/// A change of a directory's names, by the number of its event.
#[derive(Debug, Clone)]
struct NameChange {
    at: usize,
    gone: Option<String>,
    new: Option<(String, Node)>,
}

impl NameChange {
    fn directory(&self) -> &str {
        let path = self.gone.as_ref().or(self.new.as_ref().map(|(path, _)| path));
        parent(path.expect("it changes some name"))
    }

    fn apply(&self, names: &mut Names) {
        if let Some(gone) = &self.gone {
            names.remove(gone);
        }
        if let Some((path, node)) = &self.new {
            names.insert(path.clone(), *node);
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Bytes },
    Truncate(usize),
}

impl Change {
    /// The number of bytes that matter. sled overwrites free space when it opens, which does not matter.
    fn bytes(&self) -> usize {
        match self {
            Self::Write { data, .. } if data.windows(2).any(|pair| pair[0] != pair[1]) => data.len(),
            Self::Write { .. } | Self::Truncate(_) => 0,
        }
    }

    fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { offset, data } => content.overwrite(*offset, data),
            Self::Truncate(length) => content.resize(*length),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Content,
    /// The unsynced changes, with the numbers of their events.
    unsynced: Vec<(usize, Change)>,
}

/// A disk that events change.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// The names as processes see them.
    names: Names,
    durable: Names,
    unsynced: Vec<NameChange>,
    files: Vec<File>,
    /// The syncs under way: the file or directory of each, and its beginning.
    syncs: HashMap<u64, (Synced, usize)>,
    events: usize,
    /// The most bytes of one file that were unsynced at a time.
    pub widest: usize,
}

#[derive(Debug, Clone)]
enum Synced {
    File(usize),
    Directory(String),
}

impl Disk {
    /// A disk on which all of `image` is durable.
    pub fn holding(image: &Image) -> Self {
        let mut disk = Self::default();
        for (path, content) in image {
            let node = match content {
                None => Node::Directory,
                Some(content) => disk.add_file(content.clone()),
            };
            disk.names.insert(path.clone(), node);
        }
        disk.durable = disk.names.clone();
        disk
    }

    fn add_file(&mut self, durable: Content) -> Node {
        self.files.push(File { durable, unsynced: Vec::new() });
        Node::File(self.files.len() - 1)
    }

    /// Lets one more event happen.
    pub fn happens(&mut self, event: &Event) {
        let at = self.events;
        self.events += 1;
        match event {
            Event::Process => self.syncs.clear(),
            Event::Create(path) => {
                let node = self.add_file(Content::default());
                self.rename(at, None, Some((path.clone(), node)));
            }
            Event::MakeDirectory(path) => self.rename(at, None, Some((path.clone(), Node::Directory))),
            Event::Rename { from, to } => {
                let node = self.names[from];
                self.rename(at, Some(from.clone()), Some((to.clone(), node)));
            }
            Event::Remove(path) => self.rename(at, Some(path.clone()), None),
            Event::Write { path, offset, data } => {
                let offset = usize::try_from(*offset).expect("it fits memory");
                self.change(at, path, Change::Write { offset, data: data.clone() });
            }
            Event::Truncate { path, length } => {
                self.change(at, path, Change::Truncate(usize::try_from(*length).expect("it fits memory")));
            }
            Event::SyncBegins { path, number } => {
                let synced = match self.file(path) {
                    Some(file) => Synced::File(file),
                    None => Synced::Directory(path.clone()),
                };
                self.syncs.insert(*number, (synced, at));
            }
            Event::SyncEnds { number } => {
                let (synced, began) = self.syncs.remove(number).expect("it has begun");
                self.sync(&synced, began);
            }
        }
    }

    fn file(&self, path: &str) -> Option<usize> {
        match self.names.get(path) {
            Some(Node::File(file)) => Some(*file),
            Some(Node::Directory) => None,
            None => {
                assert!(path.is_empty() || path.ends_with(" (deleted)"), "{path} is not known: the log has a gap");
                None
            }
        }
    }

    fn rename(&mut self, at: usize, gone: Option<String>, new: Option<(String, Node)>) {
        let change = NameChange { at, gone, new };
        change.apply(&mut self.names);
        self.unsynced.push(change);
    }

    fn change(&mut self, at: usize, path: &str, change: Change) {
        // Writes to a removed file do not matter.
        if let Some(file) = self.file(path) {
            self.files[file].unsynced.push((at, change));
        }
    }

    fn sync(&mut self, synced: &Synced, began: usize) {
        match synced {
            Synced::File(file) => {
                let File { durable, unsynced } = &mut self.files[*file];
                self.widest = self.widest.max(unsynced.iter().map(|(_, change)| change.bytes()).sum());
                let covered = unsynced.partition_point(|(at, _)| *at < began);
                unsynced.drain(..covered).for_each(|(_, change)| change.apply(durable));
            }
            Synced::Directory(path) => {
                let covered = |change: &NameChange| change.at < began && change.directory() == path;
                self.unsynced
                    .iter()
                    .filter(|change| covered(change))
                    .for_each(|change| change.apply(&mut self.durable));
                self.unsynced.retain(|change| !covered(change));
            }
        }
    }

    /// The directory as processes see it now.
    pub fn whole(&self) -> Image {
        let content = |file: usize| {
            let File { durable, unsynced } = &self.files[file];
            let mut content = durable.clone();
            unsynced.iter().for_each(|(_, change)| change.apply(&mut content));
            content
        };
        image(&self.names, content)
    }

    /// Returns the number of blocks of 4 KiB that have changed since they were synced.
    pub fn unsynced_blocks(&self) -> usize {
        self.files.iter().map(|file| versions(&file.unsynced, 4096).len()).sum()
    }

    /// Returns the number of changes of names that are not synced.
    pub fn unsynced_names(&self) -> usize {
        self.unsynced.len()
    }

    /// The directory after a power cut at this moment.
    pub fn cut(&self, luck: Luck, dice: &mut Dice) -> Image {
        let mut names = self.durable.clone();
        let first = dice.below(self.unsynced.len() + 1);
        for (number, change) in self.unsynced.iter().enumerate() {
            if if luck.journal { number < first } else { dice.percent(luck.names) } {
                change.apply(&mut names);
            }
        }
        image(&names, |file| survivor(&self.files[file], luck, dice))
    }
}

fn image(names: &Names, mut content: impl FnMut(usize) -> Content) -> Image {
    let mut image = Image::new();
    for (path, node) in names {
        let above = parent(path);
        if above.is_empty() || image.contains_key(above) {
            let content = match node {
                Node::Directory => None,
                Node::File(file) => Some(content(*file)),
            };
            image.insert(path.clone(), content);
        }
    }
    image
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The changes of each block that was changed.
fn versions(unsynced: &[(usize, Change)], block: usize) -> BTreeMap<usize, Vec<usize>> {
    let mut versions = BTreeMap::<usize, Vec<usize>>::new();
    for (number, (_, change)) in unsynced.iter().enumerate() {
        if let Change::Write { offset, data } = change {
            for index in offset / block..(offset + data.len()).div_ceil(block) {
                versions.entry(index).or_default().push(number);
            }
        }
    }
    versions
}

fn survivor(file: &File, luck: Luck, dice: &mut Dice) -> Content {
    let mut content = file.durable.clone();
    let block = luck.block;
    // The last change of each block that has reached the disk.
    let mut last = HashMap::new();
    for (index, changes) in versions(&file.unsynced, block) {
        if dice.percent(luck.blocks) {
            let newest = changes.len() - 1;
            last.insert(index, changes[if dice.percent(50) { newest } else { dice.below(changes.len()) }]);
        }
    }
    let mut longest = content.len();
    for (number, (_, change)) in file.unsynced.iter().enumerate() {
        match change {
            Change::Truncate(length) if dice.percent(50) => {
                content.resize(*length);
                longest = *length;
            }
            Change::Truncate(_) => {}
            Change::Write { offset, data } => {
                longest = longest.max(offset + data.len());
                for index in offset / block..(offset + data.len()).div_ceil(block) {
                    if last.get(&index).is_some_and(|last| *last >= number) {
                        let from = offset.max(&(index * block)) - offset;
                        let to = (offset + data.len()).min((index + 1) * block) - offset;
                        content.overwrite(offset + from, &data[from..to]);
                    }
                }
            }
        }
    }
    // A file can have got its new length and not its new bytes.
    if dice.percent(25) {
        content.resize(longest);
    }
    content
}
