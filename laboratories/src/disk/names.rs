//! The names on a disk. A directory keeps what it is when its name has gone: another one that is made in its place has
//! none of its names.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    /// A directory, by its number.
    Directory(usize),
    /// A file, by its number.
    File(usize),
}

/// The names in each directory. The first directory is the one that all paths begin at.
#[derive(Debug, Clone)]
pub(super) struct Names(Vec<BTreeMap<String, Node>>);

/// A change of a directory's names, by the number of its event.
#[derive(Debug, Clone)]
pub(super) struct NameChange {
    pub(super) at: usize,
    pub(super) directory: usize,
    gone: Option<String>,
    new: Option<(String, Node)>,
}

impl Default for Names {
    fn default() -> Self {
        Self(vec![BTreeMap::new()])
    }
}

impl Names {
    /// Adds a directory without a name.
    pub(super) fn add_directory(&mut self) -> Node {
        self.0.push(BTreeMap::new());
        Node::Directory(self.0.len() - 1)
    }

    pub(super) fn get(&self, path: &str) -> Option<Node> {
        let mut node = Node::Directory(0);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let Node::Directory(directory) = node else { return None };
            node = *self.0[directory].get(name)?;
        }
        Some(node)
    }

    /// The change that takes the name at `gone` away, and gives the one at `new` to a node. Both are in one directory.
    pub(super) fn change(&self, at: usize, gone: Option<&str>, new: Option<(&str, Node)>) -> NameChange {
        let path = gone.or(new.map(|(path, _)| path)).expect("it changes some name");
        let (above, _) = parted(path);
        let Some(Node::Directory(directory)) = self.get(above) else {
            panic!("{above} is not known: the log has a gap")
        };
        let name = |path: &str| {
            let (same, name) = parted(path);
            assert_eq!(same, above, "a name moves within its directory");
            name.to_owned()
        };
        NameChange { at, directory, gone: gone.map(name), new: new.map(|(path, node)| (name(path), node)) }
    }

    pub(super) fn apply(&mut self, change: &NameChange) {
        let names = &mut self.0[change.directory];
        if let Some(gone) = &change.gone {
            names.remove(gone);
        }
        if let Some((name, node)) = &change.new {
            names.insert(name.clone(), *node);
        }
    }

    /// Every path.
    pub(super) fn paths(&self) -> Vec<(String, Node)> {
        let (mut paths, mut unread) = (Vec::new(), vec![(String::new(), 0)]);
        while let Some((above, directory)) = unread.pop() {
            for (name, node) in &self.0[directory] {
                let path = format!("{above}{name}");
                if let Node::Directory(below) = node {
                    unread.push((format!("{path}/"), *below));
                }
                paths.push((path, *node));
            }
        }
        paths
    }
}

/// The directory's path and the name in it.
fn parted(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
