//! What a folder holds, to the last byte.
//!
//! `manifest.json` names every file of a folder with its size and digest, and the digest of the manifest itself stands
//! for the whole folder: that one number in the journal is enough to see any damage. It is written last and removed
//! first, so a folder without one is a folder that was not finished, or that is being deleted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::storage::{self, Hindrance, Kind, Output, Storage, Written};
use crate::versioned;

/// The format of `manifest.json` that this program writes and reads.
pub const FORMAT: u32 = 1;

/// The manifest's name in its folder.
pub const NAME: &str = "manifest.json";

/// Longest manifest, in bytes, that is read.
const LONGEST: u64 = 64 << 20;

/// The files of one folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of this file; a newer one is refused.
    pub format: u32,
    /// Every file but the manifest, by name.
    pub files: BTreeMap<String, FileFacts>,
}

/// Size and digest of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFacts {
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the bytes.
    pub blake3: Digest,
}

/// What is wrong with a folder.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// There is no manifest: the folder was not finished, or is being deleted.
    #[error("`{}` has no {NAME}: it was not finished, or is being deleted", folder.display())]
    NoManifest {
        /// The folder.
        folder: PathBuf,
    },
    /// The manifest itself cannot be used.
    #[error(transparent)]
    Manifest(#[from] versioned::Error),
    /// The manifest names something that is no plain file name.
    #[error("`{}` names `{name}`, which is no file in its folder", path.display())]
    Name {
        /// The manifest.
        path: PathBuf,
        /// What it names.
        name: String,
    },
    /// A file is gone, or something else has its name.
    #[error("`{}` is missing: a file of {expected} bytes was expected", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Bytes it should have.
        expected: u64,
    },
    /// A file has another size.
    #[error("`{}` has {found} bytes; {expected} were expected", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes it should have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// A file has other bytes.
    #[error("`{}` has digest {found}; {expected} was expected", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Digest it should have.
        expected: Digest,
        /// Digest it has.
        found: Digest,
    },
    /// A file that the manifest does not know.
    #[error("`{}` is not in the manifest of its folder", path.display())]
    Unexpected {
        /// The file.
        path: PathBuf,
    },
    /// The system would not let us look: this says nothing of what is there.
    #[error("cannot read `{}`: {cause}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl Damage {
    /// Whether the folder may be sound, and only could not be looked at (permissions, too many open files, a disk
    /// error): such a folder is never to be removed.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unreadable { .. } | Self::Manifest(versioned::Error::Unreadable { .. }))
    }

    /// Whether it could not be looked at because the machine has run out of something.
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Unreadable { cause, .. } | Self::Manifest(versioned::Error::Unreadable { cause, .. }) => {
                Hindrance::of(cause).is_some_and(Hindrance::is_shortage)
            }
            _ => false,
        }
    }
}

impl Default for Manifest {
    fn default() -> Self {
        Self { format: FORMAT, files: BTreeMap::new() }
    }
}

impl Manifest {
    /// A manifest without files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file that was just written.
    pub fn insert(&mut self, name: &str, written: Written) {
        self.files.insert(name.to_owned(), FileFacts { size: written.size, blake3: written.digest });
    }

    /// The manifest of what lies in a folder now: every file is read. For folders whose writer hashed nothing.
    pub fn of(folder: &Path) -> Result<Self, Damage> {
        let mut manifest = Self::new();
        for name in names(folder)? {
            let path = folder.join(&name);
            let size = size_of(&path)?.ok_or_else(|| Damage::Unexpected { path: path.clone() })?;
            manifest.files.insert(name, FileFacts { size, blake3: digest_of(&path)? });
        }
        Ok(manifest)
    }

    /// The bytes of `manifest.json`: the same files give the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        #[expect(clippy::expect_used, reason = "names and numbers always serialize")]
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest is names and numbers");
        bytes.push(b'\n');
        bytes
    }

    /// The digest that stands for the folder.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Bytes of all files together, the manifest not counted.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|facts| facts.size).sum()
    }

    /// Writes `manifest.json` into a folder that is not published yet, as its last file, and gives its digest.
    pub fn write(&self, storage: &dyn Storage, folder: &Path) -> storage::Result<Digest> {
        let mut output = Output::create(storage, &folder.join(NAME))?;
        output.write(&self.to_bytes())?;
        output.finish().map(|written| written.digest)
    }

    /// Reads a folder's manifest and the digest of its bytes. Says nothing of the files.
    pub fn read(folder: &Path) -> Result<(Self, Digest), Damage> {
        let path = folder.join(NAME);
        match size_of(&path)? {
            None => return Err(Damage::NoManifest { folder: folder.to_owned() }),
            Some(size) if size > LONGEST => {
                let why = format!("it is longer than {LONGEST} bytes");
                return Err(versioned::Error::Malformed { path, why }.into());
            }
            Some(_) => {}
        }
        let bytes = fs::read(&path).map_err(|cause| Damage::Unreadable { path: path.clone(), cause })?;
        let manifest: Self = versioned::parse(&path, &bytes, FORMAT)?;
        if let Some(name) = manifest.files.keys().find(|name| !is_plain(name)) {
            return Err(Damage::Name { path, name: name.clone() });
        }
        Ok((manifest, Digest::of(&bytes)))
    }
}

/// Checks a folder against its manifest to the last byte, and gives the digest of the manifest. The caller compares
/// that with the one it knows.
pub fn verify(folder: &Path) -> Result<Digest, Damage> {
    let (manifest, digest) = check(folder)?;
    for (name, facts) in &manifest.files {
        let path = folder.join(name);
        let found = digest_of(&path)?;
        if found != facts.blake3 {
            return Err(Damage::Content { path, expected: facts.blake3, found });
        }
    }
    Ok(digest)
}

/// Checks that a folder holds the files of its manifest, in their sizes, and no others; reads none of them. Sees what a
/// crash or a careless hand leaves, and no flipped bits.
pub fn verify_structure(folder: &Path) -> Result<Digest, Damage> {
    check(folder).map(|(_, digest)| digest)
}

/// Deletes a folder so that a crash in the middle leaves none that looks sound: its manifest goes first, durably, then
/// the rest. A folder that is gone already is no error.
pub fn delete(storage: &dyn Storage, folder: &Path) -> storage::Result<()> {
    match storage.kind(folder)? {
        None => return Ok(()),
        Some(Kind::Folder) => {
            let manifest = folder.join(NAME);
            if storage.kind(&manifest)?.is_some() {
                storage.remove_file(&manifest)?;
                storage.sync_folder(folder)?;
            }
            storage::remove_tree(storage, folder)?;
        }
        // A link goes, and what it points to stays.
        Some(Kind::File | Kind::Other) => storage.remove_file(folder)?,
    }
    storage.sync_folder(storage::parent(folder))
}

fn check(folder: &Path) -> Result<(Manifest, Digest), Damage> {
    let (manifest, digest) = Manifest::read(folder)?;
    for (name, facts) in &manifest.files {
        let path = folder.join(name);
        match size_of(&path)? {
            None => return Err(Damage::Missing { path, expected: facts.size }),
            Some(found) if found != facts.size => {
                return Err(Damage::Size { path, expected: facts.size, found });
            }
            Some(_) => {}
        }
    }
    match names(folder)?.into_iter().find(|name| !manifest.files.contains_key(name)) {
        Some(name) => Err(Damage::Unexpected { path: folder.join(name) }),
        None => Ok((manifest, digest)),
    }
}

/// Every name in a folder but the manifest's and temporary ones, in byte order.
fn names(folder: &Path) -> Result<Vec<String>, Damage> {
    let unreadable = |cause| Damage::Unreadable { path: folder.to_owned(), cause };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if name == NAME || storage::is_temporary(&name) {
            continue;
        }
        match name.into_string() {
            Ok(name) => names.push(name),
            Err(name) => return Err(Damage::Unexpected { path: folder.join(name) }),
        }
    }
    names.sort();
    Ok(names)
}

/// Whether a name is that of a file right in the folder.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let plain = matches!(parts.next(), Some(Component::Normal(part)) if part == name);
    plain && parts.next().is_none() && name != NAME
}

/// The size of a regular file; `None` where there is none, or where a folder or a link has its name.
fn size_of(path: &Path) -> Result<Option<u64>, Damage> {
    match fs::symlink_metadata(path) {
        Ok(facts) if facts.is_file() => Ok(Some(facts.len())),
        Ok(_) => Ok(None),
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(cause) => Err(Damage::Unreadable { path: path.to_owned(), cause }),
    }
}

fn digest_of(path: &Path) -> Result<Digest, Damage> {
    Digest::of_file(path).map_err(|cause| Damage::Unreadable { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Disk;
    use crate::storage::crash::CrashDisk;

    /// A folder of two files with its manifest.
    fn folder() -> (tempfile::TempDir, PathBuf, Digest) {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a"), b"aaaa").unwrap();
        fs::write(folder.join("b"), vec![7; 100_000]).unwrap();
        let digest = Manifest::of(&folder).unwrap().write(&Disk, &folder).unwrap();
        (above, folder, digest)
    }

    #[test]
    fn a_sound_folder_verifies_with_the_digest_of_its_manifest() {
        let (_above, folder, digest) = folder();
        assert_eq!(verify(&folder).unwrap(), digest);
        assert_eq!(verify_structure(&folder).unwrap(), digest);
        let (manifest, read) = Manifest::read(&folder).unwrap();
        assert_eq!((read, manifest.digest()), (digest, digest));
        assert_eq!(manifest.bytes(), 100_004);
        fs::write(folder.join(".tmp-left-over"), b"").unwrap();
        assert_eq!(verify(&folder).unwrap(), digest);
    }

    #[test]
    fn every_damage_is_named() {
        type Harm = fn(&Path);
        let cases: [(Harm, &str); 9] = [
            (|f| fs::write(f.join("a"), b"abaa").unwrap(), "/a` has digest"),
            (|f| fs::write(f.join("a"), b"aaa").unwrap(), "/a` has 3 bytes; 4 were expected"),
            (|f| fs::write(f.join("b"), vec![0; 100_000]).unwrap(), "/b` has digest"),
            (|f| fs::remove_file(f.join("b")).unwrap(), "/b` is missing: a file of 100000 bytes"),
            (|f| fs::remove_file(f.join(NAME)).unwrap(), "has no manifest.json"),
            (|f| fs::write(f.join("c"), b"").unwrap(), "/c` is not in the manifest"),
            (|f| fs::write(f.join(NAME), b"{\"format\": 1").unwrap(), "damaged"),
            (|f| fs::write(f.join(NAME), b"{\"format\": 2}").unwrap(), "newer program"),
            (
                |f| {
                    fs::remove_file(f.join("a")).unwrap();
                    std::os::unix::fs::symlink("/etc/hostname", f.join("a")).unwrap();
                },
                "/a` is missing",
            ),
        ];
        for (harm, expected) in cases {
            let (_above, folder, _) = folder();
            harm(&folder);
            let damage = verify(&folder).unwrap_err();
            assert!(damage.to_string().contains(expected), "{damage}");
            assert!(!damage.is_unknown());
        }
    }

    #[test]
    fn a_manifest_that_points_out_of_its_folder_is_refused() {
        let (_above, folder, _) = folder();
        for name in ["../a", "/etc/passwd", "sub/a", "..", ".", "", "a/", "manifest.json"] {
            let mut manifest = Manifest::new();
            manifest.insert(name, Written { size: 1, digest: Digest::of(b"") });
            fs::write(folder.join(NAME), manifest.to_bytes()).unwrap();
            assert!(matches!(verify(&folder), Err(Damage::Name { .. })), "{name}");
        }
    }

    #[test]
    fn deleting_a_link_leaves_what_it_points_to() {
        let (above, folder, digest) = folder();
        let link = above.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        delete(&Disk, &link).unwrap();
        assert!(!link.exists());
        assert_eq!(verify(&folder).unwrap(), digest);
        delete(&Disk, &folder).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn a_folder_that_is_being_deleted_never_looks_sound() {
        let disk = CrashDisk::new();
        let folder = Path::new("/checkpoint");
        let temporary = storage::temporary_folder(&disk, folder).unwrap();
        let mut manifest = Manifest::new();
        for name in ["a", "b"] {
            let mut output = Output::create(&disk, &temporary.join(name)).unwrap();
            output.write(name.as_bytes()).unwrap();
            manifest.insert(name, output.finish().unwrap());
        }
        manifest.write(&disk, &temporary).unwrap();
        storage::publish_folder(&disk, &temporary, folder).unwrap();
        let before = disk.moments();
        delete(&disk, folder).unwrap();
        delete(&disk, folder).unwrap();
        for moment in before..=disk.moments() {
            for image in disk.crash_images_at(moment) {
                let real = tempfile::tempdir().unwrap();
                image.write_to(real.path()).unwrap();
                let there = real.path().join("checkpoint");
                match image.files().len() {
                    3 => assert!(verify(&there).is_ok()),
                    // Not merely damaged: it says itself that it is going.
                    _ => assert!(matches!(verify(&there), Err(Damage::NoManifest { .. }))),
                }
                delete(&image, folder).unwrap();
                assert_eq!(image.files().len(), 0);
            }
        }
    }
}
