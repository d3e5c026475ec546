//! A disk that is really full: a small file system in memory, filled to the brim.

use std::path::Path;
use std::process::{Command, Output};

use crate::common::{disk::quick_directory, skipped};
use crate::points::{known, wrong_in};
use crate::process::live;
use crate::scenario::{Act, FILLER, plan_in};
use crate::work::notes::{self, Found, Note};
use crate::work::retry::judge;

/// What is left when the store goes on: nothing, less than a block, and more than one.
const LEFT: [u64; 4] = [0, 1_000, 20_000, 700_000];

/// A file system of 24 MiB, as long as this lives.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mounted(at: &'a Path) -> Result<Self, String> {
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(at).output();
        match output {
            Ok(Output { status, .. }) if status.success() => Ok(Self(at)),
            Ok(Output { stderr, .. }) => Err(String::from_utf8_lossy(&stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        // Lazily: a process that was killed may still be on its way out.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn on_a_full_disk_nothing_false_is_said_and_with_room_again_all_is_there() {
    let (mut violations, mut acknowledged, mut refused) = (Vec::new(), 0, 0);
    for left in LEFT {
        let directory = quick_directory();
        let plan = plan_in(directory.path(), Act::Fill(left), 20);
        let small = match Small::mounted(&plan.data) {
            Ok(small) => small,
            Err(obstacle) => return skipped("what happens on a full disk", &obstacle),
        };
        violations.extend(live(&plan, directory.path(), None).err());
        // A process that finds the disk full from the start.
        let again = plan_in(directory.path(), Act::Everything, 20);
        violations.extend(live(&again, directory.path(), None).err());
        let notes = notes::read_file(&plan.notes);
        violations.extend(wrong_in(&notes));
        refused += notes.iter().filter(|note| is_refusal(note)).count();
        std::fs::remove_file(plan.data.join(FILLER)).expect("it is there");
        let known = known(&notes);
        acknowledged += known.histories.acknowledged();
        violations.extend(judge(&plan.data, &known));
        drop(small);
    }
    violations.iter().for_each(|violation| println!("{violation}"));
    let count = violations.len();
    let disks = LEFT.len();
    println!("full disk: disks {disks}, refusals {refused}, acknowledged keys {acknowledged}, violations {count}");
    assert_eq!(count, 0);
    assert!(refused > 0 && acknowledged > 0, "it shows nothing");
}

/// The store failed, or could not be opened.
fn is_refusal(note: &Note) -> bool {
    matches!(note, Note::Found(Found::Poisoned(_) | Found::NotOpened(_)))
}
