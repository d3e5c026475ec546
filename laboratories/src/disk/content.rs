//! The bytes of a file of a laboratory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

/// The size of a block.
const BLOCK: usize = 4096;

const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// The bytes of a file, in blocks. A block of zeros takes no memory and no space, and copies share their blocks:
/// engines make files long before they write to them, and a laboratory has thousands of copies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    length: usize,
    /// The blocks that have something else than zeros, by their number. The last one may reach past the end, with
    /// zeros.
    blocks: BTreeMap<usize, Arc<[u8; BLOCK]>>,
}

impl Content {
    /// Reads a file.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(path: &Path) -> io::Result<Self> {
        fs::read(path).map(|bytes| Self::from(&*bytes))
    }

    /// Writes a new file.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.length as u64)?;
        self.blocks.iter().try_for_each(|(index, block)| {
            let from = index * BLOCK;
            file.write_all_at(&block[..BLOCK.min(self.length - from)], from as u64)
        })
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes up to the last one that is not zero.
    pub fn written(&self) -> Vec<u8> {
        let Some((last, block)) = self.blocks.last_key_value() else { return Vec::new() };
        let in_last = block.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let mut bytes = vec![0; last * BLOCK + in_last];
        for (index, block) in &self.blocks {
            let place = &mut bytes[index * BLOCK..];
            let length = place.len().min(BLOCK);
            place[..length].copy_from_slice(&block[..length]);
        }
        bytes
    }

    /// Cuts the file, or makes it longer with zeros.
    pub fn resize(&mut self, length: usize) {
        if length < self.length {
            let beyond = self.length - length;
            drop(self.blocks.split_off(&length.div_ceil(BLOCK)));
            if !length.is_multiple_of(BLOCK) {
                self.put(length / BLOCK, length % BLOCK, &ZEROS[..beyond.min(BLOCK - length % BLOCK)]);
            }
        }
        self.length = length;
    }

    /// Writes `data` at `offset`. The file becomes longer if it has to.
    pub fn overwrite(&mut self, offset: usize, data: &[u8]) {
        self.length = self.length.max(offset + data.len());
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK - at % BLOCK));
            self.put(at / BLOCK, at % BLOCK, now);
            (at, rest) = (at + now.len(), later);
        }
    }

    /// Writes `data` into one block.
    fn put(&mut self, index: usize, at: usize, data: &[u8]) {
        let are_zeros = data == &ZEROS[..data.len()];
        if are_zeros && !self.blocks.contains_key(&index) {
            return;
        }
        let block = Arc::make_mut(self.blocks.entry(index).or_insert_with(|| Arc::new([0; BLOCK])));
        block[at..at + data.len()].copy_from_slice(data);
        if are_zeros && *block == ZEROS {
            self.blocks.remove(&index);
        }
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.overwrite(0, bytes);
        content
    }
}
