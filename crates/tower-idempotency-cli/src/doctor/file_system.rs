//! The file system of a directory.

use std::path::{Path, PathBuf};

use super::grade::Grade;
use super::report::Report;
use crate::failure::Failure;

/// A mount, as `/proc/self/mountinfo` has it.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    kind: String,
    options: Vec<String>,
}

/// Reports what is known of the file system of a directory, whose path is absolute and has no links.
pub(super) fn test(directory: &Path, report: &mut Report) -> Result<(), Failure> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match mount_of(&mounts, directory) {
        Some(mount) => {
            let (grade, found) = judge(&mount);
            report.found("file system", grade, found)
        }
        None => report.unclear("file system", "it is not known on this system"),
    }
}

/// Returns whether the files of a directory may be written without the disk's driver.
pub(super) fn is_direct(directory: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_of(&mounts, directory).is_some_and(|mount| mount.options.iter().any(|option| option.starts_with("dax")))
}

fn judge(Mount { point, kind, options }: &Mount) -> (Grade, String) {
    let at = format!("{kind} at {}", point.display());
    match kind.as_str() {
        "tmpfs" | "ramfs" | "devtmpfs" => {
            (Grade::NotDurable, format!("{at} is in memory: all is lost when the machine stops"))
        }
        "ext3" | "ext4" | "xfs" | "btrfs" | "zfs" | "f2fs" | "bcachefs" => {
            let unsafe_option = options.iter().find(|option| matches!(option.as_str(), "nobarrier" | "barrier=0"));
            match unsafe_option {
                Some(option) => (
                    Grade::NotDurable,
                    format!("{at} is mounted with {option}: a sync may leave data in the disk's cache"),
                ),
                None => (Grade::Good, at),
            }
        }
        "overlay" | "aufs" => (
            Grade::Unclear,
            format!("{at} is a container's own layer, and goes with the container: put the store on a volume"),
        ),
        _ => (Grade::Unclear, format!("{at}: it is not known what a sync or a lock does there")),
    }
}

/// Returns the mount that has a directory: of those whose point is above it the nearest one, and the last of these.
fn mount_of(mounts: &str, directory: &Path) -> Option<Mount> {
    let above = mounts.lines().filter_map(read).filter(|mount| directory.starts_with(&mount.point));
    above.max_by_key(|mount| mount.point.components().count())
}

/// Reads a line: six fields, optional ones up to a dash, the type, the source and the file system's own options.
fn read(line: &str) -> Option<Mount> {
    let (fields, rest) = line.split_once(" - ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let [kind, _, own, ..] = rest.split(' ').collect::<Vec<_>>()[..] else { return None };
    let options = fields.get(5)?.split(',').chain(own.split(',')).map(str::to_owned).collect();
    Some(Mount { point: unescaped(fields.get(4)?).into(), kind: kind.to_owned(), options })
}

/// Blanks and backslashes are written as their number in octal.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, char)| text.replace(escaped, char))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
25 24 0:23 / /dev/shm rw shared:3 master:1 - tmpfs tmpfs rw,size=24684084k
40 27 8:1 / /srv/my\\040data rw,noatime - xfs /dev/sda1 rw,nobarrier
41 27 0:50 / /srv/over rw - overlay overlay rw,lowerdir=a
42 27 0:51 / /srv/net rw - nfs4 host:/x rw,vers=4.2
43 27 8:2 / /srv/over rw - ext4 /dev/sda2 rw
44 27 0:52 / /srv/layer rw - overlay overlay rw,lowerdir=b";

    #[test]
    fn the_mount_of_a_directory_decides() {
        for (directory, grade, said) in [
            ("/var/lib/payments", Grade::Good, "ext4 at /"),
            ("/dev/shm/p", Grade::NotDurable, "in memory"),
            ("/srv/my data/p", Grade::NotDurable, "nobarrier"),
            ("/srv/over/p", Grade::Good, "ext4 at /srv/over"),
            ("/srv/overthere", Grade::Good, "ext4 at /"),
            ("/srv/net", Grade::Unclear, "nfs4"),
            ("/srv/layer/p", Grade::Unclear, "put the store on a volume"),
        ] {
            let found = judge(&mount_of(MOUNTS, Path::new(directory)).unwrap());
            assert!(found.0 == grade && found.1.contains(said), "{directory}: {found:?}");
        }
        assert_eq!(mount_of("nonsense\n1 2 - x", Path::new("/")), None);
    }
}
