//! Disks of a test: small, full, or read-only. They are mounted, which the superuser may do, also one of a namespace of
//! its own (`unshare --map-root-user --mount`).

use std::path::{Path, PathBuf};
use std::process::Command;

/// A disk that is mounted over a folder until this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of so many bytes over a folder; what lies in the folder is copied onto it.
    pub fn over(folder: &Path, bytes: u64) -> Self {
        let aside = tempfile::tempdir().unwrap();
        run("cp", &["-a", &format!("{}/.", folder.display()), &aside.path().display().to_string()]);
        run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "none", &folder.display().to_string()]);
        let disk = Self { folder: folder.to_owned() };
        run("cp", &["-a", &format!("{}/.", aside.path().display()), &folder.display().to_string()]);
        disk
    }

    /// A disk that is a folder once more, and can only be read.
    pub fn read_only(folder: &Path) -> Self {
        let path = folder.display().to_string();
        run("mount", &["--bind", &path, &path]);
        let disk = Self { folder: folder.to_owned() };
        run("mount", &["-o", "remount,bind,ro", &path]);
        disk
    }

    /// Makes it so large.
    pub fn resize(&self, bytes: u64) {
        run("mount", &["-o", &format!("remount,size={bytes}"), &self.folder.display().to_string()]);
    }

    /// Fills it but for so many bytes, with a file of this name. Says where that is.
    pub fn fill_but(&self, left: u64, name: &str) -> PathBuf {
        let filler = self.folder.join(name);
        let file = std::fs::File::create(&filler).unwrap();
        // Others write meanwhile.
        for _ in 0..1000 {
            let system = rustix::fs::statvfs(&self.folder).unwrap();
            let bytes = (system.f_bavail * system.f_frsize).saturating_sub(left).max(1);
            if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).is_ok() {
                return filler;
            }
        }
        panic!("`{}` cannot be filled", self.folder.display());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still works there is of the same test, and ends with it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.folder).status();
    }
}

/// Runs a program of the machine.
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {} (mounting needs the superuser: `unshare --map-root-user --mount` makes one)",
        String::from_utf8_lossy(&output.stderr).trim()
    );
}
