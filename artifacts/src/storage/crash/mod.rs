//! A disk that forgets: what may be found after a power cut at any moment of a test.
//!
//! It keeps a log of everything that was done. At a moment of that log each unsynced thing may or may not have reached
//! the disk: bytes of a file since its last sync (none, all, torn in the middle of the last write, or a length without
//! its bytes, as delayed allocation leaves it) and names since the last sync of their folder (any subset; a rename is
//! one thing, and needs the sync of both its folders). This is harsher than any one file system: code that survives
//! here does not lean on the habits of ext4.

mod images;
mod tree;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use images::images;
use tree::{Image, Node, Op, Tree};

use super::{Entry, Error, File, Kind, Result, Storage, disk::too_long};

/// An in-memory disk that can be cut from power at any moment. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct CrashDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    log: Vec<Op>,
    now: Tree,
    /// The log up to here is durable whatever happens: the image that this disk began with.
    from: usize,
    /// Writing operations left before the disk is full.
    room: Option<u64>,
}

impl CrashDisk {
    /// An empty disk, with no folder but the root `/`.
    pub fn new() -> Self {
        Self::default()
    }

    /// How much has happened so far: the moments at which the power may be cut are `0..=moments()`.
    pub fn moments(&self) -> usize {
        let state = self.lock();
        state.log.len() - state.from
    }

    /// Every disk that may be found if the power is cut now.
    pub fn crash_images(&self) -> Vec<Self> {
        self.crash_images_at(self.moments())
    }

    /// Every disk that may be found if the power was cut after the first `moment` operations.
    pub fn crash_images_at(&self, moment: usize) -> Vec<Self> {
        let state = self.lock();
        let end = (state.from + moment).min(state.log.len());
        images(&state.log[..end], state.from).into_iter().map(|image| Self::holding(&image)).collect()
    }

    /// After `operations` more writing operations the disk is full: appends stop half-way, nothing new can be made.
    pub fn full_after(&self, operations: u64) {
        self.lock().room = Some(operations);
    }

    /// There is room again.
    pub fn make_room(&self) {
        self.lock().room = None;
    }

    /// All files, with their bytes, as a running program sees them.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let image = self.lock().now.image();
        image.into_iter().filter_map(|(path, bytes)| Some((path, bytes?))).collect()
    }

    /// Writes all files and folders below a real folder, for readers that want real files.
    pub fn write_to(&self, folder: &Path) -> io::Result<()> {
        for (path, bytes) in self.lock().now.image() {
            let path = folder.join(path.strip_prefix("/").unwrap_or(&path));
            match bytes {
                Some(bytes) => std::fs::write(path, bytes)?,
                None => std::fs::create_dir_all(path)?,
            }
        }
        Ok(())
    }

    /// A disk on which all of an image is durable. Folders sort before what they hold.
    fn holding(image: &Image) -> Self {
        let mut state = State::default();
        for (path, bytes) in image {
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let Some(folder) = state.now.find(above) else { continue };
            let node = state.now.next();
            state.act(Op::Node { folder: bytes.is_none() });
            state.act(Op::Append { node, bytes: bytes.clone().unwrap_or_default() });
            state.act(Op::Link { folder, name: name.to_owned(), node });
        }
        state.from = state.log.len();
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, node: Node, path: &Path) -> Box<dyn File> {
        Box::new(Handle { disk: self.clone(), node, path: path.to_owned(), broken: false })
    }
}

impl State {
    fn act(&mut self, op: Op) {
        self.now.apply(&op);
        self.log.push(op);
    }

    /// Whether there is room for one more writing operation, which is thereby used.
    fn room(&mut self) -> io::Result<()> {
        match &mut self.room {
            Some(0) => Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on the disk")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The folder of a path, and the path's name.
    fn place<'p>(&self, path: &'p Path) -> io::Result<(Node, &'p OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = self.now.find(super::parent(path)).ok_or(io::ErrorKind::NotFound)?;
        self.now.folder(folder)?;
        Ok((folder, name))
    }

    fn create(&mut self, path: &Path, folder: bool) -> io::Result<Node> {
        let (above, name) = self.place(path)?;
        if self.now.find(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.room()?;
        let node = self.now.next();
        self.act(Op::Node { folder });
        self.act(Op::Link { folder: above, name: name.to_owned(), node });
        Ok(node)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.now.find(from).ok_or(io::ErrorKind::NotFound)?;
        let ((from_folder, from_name), (to_folder, to_name)) = (self.place(from)?, self.place(to)?);
        if let Some(old) = self.now.find(to)
            && self.now.folder(old).is_ok_and(|names| !names.is_empty())
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.act(Op::Rename { from: (from_folder, from_name.into()), to: (to_folder, to_name.into()), node });
        Ok(())
    }

    fn remove(&mut self, path: &Path, folder: bool) -> io::Result<()> {
        let node = self.now.find(path).ok_or(io::ErrorKind::NotFound)?;
        let (above, name) = self.place(path)?;
        if folder {
            if !self.now.folder(node)?.is_empty() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
        } else {
            self.now.file(node)?;
        }
        self.act(Op::Unlink { folder: above, name: name.to_owned() });
        Ok(())
    }
}

impl Storage for CrashDisk {
    fn create(&self, path: &Path) -> Result<Box<dyn File>> {
        let node = self.lock().create(path, false).map_err(Error::at("create", path))?;
        Ok(self.handle(node, path))
    }

    fn append(&self, path: &Path) -> Result<Box<dyn File>> {
        let state = self.lock();
        let node = state.now.find(path).ok_or_else(|| io::ErrorKind::NotFound.into());
        let node = node.and_then(|node| state.now.file(node).map(|_| node));
        drop(state);
        Ok(self.handle(node.map_err(Error::at("open to append to", path))?, path))
    }

    fn read(&self, path: &Path, longest: u64) -> Result<Vec<u8>> {
        let state = self.lock();
        let node = state.now.find(path).ok_or_else(|| io::ErrorKind::NotFound.into());
        let bytes = node.and_then(|node| state.now.file(node)).map_err(Error::at("read", path))?;
        if bytes.len() as u64 > longest {
            return Err(Error::at("read", path)(too_long(longest)));
        }
        Ok(bytes.clone())
    }

    fn list(&self, folder: &Path) -> Result<Vec<Entry>> {
        let state = self.lock();
        let node = state.now.find(folder).ok_or_else(|| io::ErrorKind::NotFound.into());
        let names = node.and_then(|node| state.now.folder(node)).map_err(Error::at("list", folder))?;
        let mut entries = Vec::with_capacity(names.len());
        for (name, node) in names {
            entries.push(Entry { name: name.clone(), kind: state.now.kind(*node) });
        }
        Ok(entries)
    }

    fn kind(&self, path: &Path) -> Result<Option<Kind>> {
        let state = self.lock();
        Ok(state.now.find(path).map(|node| state.now.kind(node)))
    }

    fn create_folder(&self, folder: &Path) -> Result<()> {
        self.lock().create(folder, true).map(|_| ()).map_err(Error::at("create the folder", folder))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.lock().rename(from, to).map_err(Error::at("rename something to", to))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.lock().remove(path, false).map_err(Error::at("remove", path))
    }

    fn remove_folder(&self, folder: &Path) -> Result<()> {
        self.lock().remove(folder, true).map_err(Error::at("remove the folder", folder))
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        let mut state = self.lock();
        let node = state.now.find(path).ok_or_else(|| io::ErrorKind::NotFound.into());
        let node = node.map_err(Error::at("sync", path))?;
        state.act(Op::SyncFile { node });
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        let mut state = self.lock();
        let node = state.now.find(folder).ok_or_else(|| io::ErrorKind::NotFound.into());
        let node = node.map_err(Error::at("sync the folder", folder))?;
        state.act(Op::SyncFolder { folder: node });
        Ok(())
    }
}

struct Handle {
    disk: CrashDisk,
    node: Node,
    path: PathBuf,
    broken: bool,
}

impl Handle {
    fn sound(&self, doing: &'static str) -> Result<()> {
        let refusal = io::Error::other("an earlier write or sync of it failed; open it again and check it");
        if self.broken { Err(Error::at(doing, &self.path)(refusal)) } else { Ok(()) }
    }
}

impl File for Handle {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.sound("write")?;
        let mut state = self.disk.lock();
        let room = state.room();
        let bytes = if room.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        state.act(Op::Append { node: self.node, bytes: bytes.to_vec() });
        self.broken = room.is_err();
        room.map_err(Error::at("write", &self.path))
    }

    fn sync_data(&mut self) -> Result<()> {
        self.sound("sync")?;
        self.disk.lock().act(Op::SyncFile { node: self.node });
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> Result<()> {
        self.sound("cut")?;
        let length = usize::try_from(length).map_err(|_| Error::at("cut", &self.path)(too_long(length)))?;
        self.disk.lock().act(Op::Truncate { node: self.node, length });
        Ok(())
    }

    fn length(&self) -> u64 {
        self.disk.lock().now.file(self.node).map_or(0, |bytes| bytes.len() as u64)
    }
}
