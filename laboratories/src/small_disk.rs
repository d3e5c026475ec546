//! A disk that is soon full.

use std::path::Path;
use std::process::{Command, Output};

/// A mounted file system in memory. Dropping the value unmounts it.
#[derive(Debug)]
pub struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    /// Mounts one of this size, such as `24m`. An error says why it can't be.
    pub fn mounted(at: &'a Path, size: &str) -> Result<Self, String> {
        let size = format!("size={size}");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        match output {
            Ok(Output { status, .. }) if status.success() => Ok(Self(at)),
            Ok(Output { stderr, .. }) => Err(String::from_utf8_lossy(&stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        // The unmount is lazy: a process that was killed may not have ended yet.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
