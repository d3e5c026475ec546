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
use super::names::{NameChange, Names, Node};

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

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Bytes },
    Truncate(usize),
}

/// Returns whether a write has data: when sled opens, it overwrites free space with equal bytes.
pub fn says_something(data: &[u8]) -> bool {
    data.get(1..).is_some_and(|later| later != &data[..later.len()])
}

impl Change {
    /// The number of bytes that matter.
    fn bytes(&self) -> usize {
        match self {
            Self::Write { data, .. } if says_something(data) => data.len(),
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
    syncs: HashMap<u64, (Node, usize)>,
    events: usize,
    /// The most bytes of one file that were unsynced at a time.
    pub widest: usize,
}

impl Disk {
    /// A disk on which all of `image` is durable.
    pub fn holding(image: &Image) -> Self {
        let mut disk = Self::default();
        for (path, content) in image {
            let node = match content {
                None => disk.add_directory(),
                Some(content) => disk.add_file(content.clone()),
            };
            disk.change_name(0, None, Some((path, node)));
        }
        disk.unsynced.clear();
        disk.durable = disk.names.clone();
        disk
    }

    fn add_file(&mut self, durable: Content) -> Node {
        self.files.push(File { durable, unsynced: Vec::new() });
        Node::File(self.files.len() - 1)
    }

    fn add_directory(&mut self) -> Node {
        self.durable.add_directory();
        self.names.add_directory()
    }

    /// Lets one more event happen.
    pub fn happens(&mut self, event: &Event) {
        let at = self.events;
        self.events += 1;
        match event {
            Event::Process => self.syncs.clear(),
            Event::Create(path) => {
                let node = self.add_file(Content::default());
                self.change_name(at, None, Some((path, node)));
            }
            Event::MakeDirectory(path) => {
                let node = self.add_directory();
                self.change_name(at, None, Some((path, node)));
            }
            Event::Rename { from, to } => {
                let node = self.names.get(from).expect("it is known");
                self.change_name(at, Some(from), Some((to, node)));
            }
            Event::Remove(path) => self.change_name(at, Some(path), None),
            Event::Write { path, offset, data } => {
                let offset = usize::try_from(*offset).expect("it fits memory");
                self.change(at, path, Change::Write { offset, data: data.clone() });
            }
            Event::Truncate { path, length } => {
                self.change(at, path, Change::Truncate(usize::try_from(*length).expect("it fits memory")));
            }
            Event::SyncBegins { path, number } => {
                if let Some(node) = self.node(path) {
                    self.syncs.insert(*number, (node, at));
                }
            }
            Event::SyncEnds { number } => {
                // A removed file may be synced.
                if let Some((node, began)) = self.syncs.remove(number) {
                    self.sync(node, began);
                }
            }
        }
    }

    /// What has this path; `None` if it has been removed.
    fn node(&self, path: &str) -> Option<Node> {
        let node = self.names.get(path);
        assert!(node.is_some() || path.ends_with(" (deleted)"), "{path} is not known: the log has a gap");
        node
    }

    fn change_name(&mut self, at: usize, gone: Option<&str>, new: Option<(&str, Node)>) {
        let change = self.names.change(at, gone, new);
        self.names.apply(&change);
        self.unsynced.push(change);
    }

    fn change(&mut self, at: usize, path: &str, change: Change) {
        // Writes to a removed file do not matter.
        if let Some(Node::File(file)) = self.node(path) {
            self.files[file].unsynced.push((at, change));
        }
    }

    fn sync(&mut self, synced: Node, began: usize) {
        match synced {
            Node::File(file) => {
                let File { durable, unsynced } = &mut self.files[file];
                self.widest = self.widest.max(unsynced.iter().map(|(_, change)| change.bytes()).sum());
                let covered = unsynced.partition_point(|(at, _)| *at < began);
                unsynced.drain(..covered).for_each(|(_, change)| change.apply(durable));
            }
            Node::Directory(directory) => {
                let covered = |change: &NameChange| change.at < began && change.directory == directory;
                let durable = &mut self.durable;
                self.unsynced.iter().filter(|change| covered(change)).for_each(|change| durable.apply(change));
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
                names.apply(change);
            }
        }
        image(&names, |file| survivor(&self.files[file], luck, dice))
    }
}

fn image(names: &Names, mut content: impl FnMut(usize) -> Content) -> Image {
    let content = |(path, node)| match node {
        Node::Directory(_) => (path, None),
        Node::File(file) => (path, Some(content(file))),
    };
    names.paths().into_iter().map(content).collect()
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
