//! A disk that forgets: what may be found after a power cut at any moment of a test.
//!
//! It keeps a log of everything that was done. At a moment of that log each unsynced thing may or may not have reached
//! the disk: bytes of a file since its last sync (none, all, torn in the middle of the last write, or a length without
//! its bytes, as delayed allocation leaves it) and names since the last sync of their folder (any subset; a rename is
//! one thing, and needs the sync of both its folders). This is harsher than any one file system: code that survives
//! here does not lean on the habits of ext4.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Entry, Error, File, Kind, Result, Storage, disk::too_long};

/// With more unsynced names than this, not every subset is tried, but each prefix, each one missing, each one alone.
const ALL_SUBSETS: usize = 7;

/// With more files of unsynced bytes than this, all are torn in the same way.
const ALL_TEARS: usize = 2;

/// An in-memory disk that can be cut from power at any moment. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct CrashDisk {
    state: Arc<Mutex<State>>,
}

/// What a path holds: `None` for a folder.
type Image = BTreeMap<PathBuf, Option<Vec<u8>>>;

type Node = usize;

/// The root folder's node.
const ROOT: Node = 0;

#[derive(Debug, Clone)]
enum Op {
    /// A node came to be: what it starts with (a folder: nothing) is durable with its name.
    Node {
        folder: bool,
    },
    Append {
        node: Node,
        bytes: Vec<u8>,
    },
    Truncate {
        node: Node,
        length: usize,
    },
    SyncFile {
        node: Node,
    },
    Link {
        folder: Node,
        name: OsString,
        node: Node,
    },
    Unlink {
        folder: Node,
        name: OsString,
    },
    Rename {
        from: (Node, OsString),
        to: (Node, OsString),
        node: Node,
    },
    SyncFolder {
        folder: Node,
    },
}

#[derive(Debug, Clone)]
enum Content {
    File(Vec<u8>),
    Folder(BTreeMap<OsString, Node>),
}

/// Nodes by number; the first is the root.
#[derive(Debug, Clone)]
struct Tree(Vec<Content>);

#[derive(Debug)]
struct State {
    log: Vec<Op>,
    now: Tree,
    /// The log up to here is durable whatever happens: the image that this disk began with.
    from: usize,
    /// Writing operations left before the disk is full.
    room: Option<u64>,
}

/// How far a file's unsynced writes came.
#[derive(Debug, Clone, Copy)]
enum Tear {
    None,
    All,
    Middle,
    LengthOnly,
}

impl Default for State {
    fn default() -> Self {
        Self { log: Vec::new(), now: Tree(vec![Content::Folder(BTreeMap::new())]), from: 0, room: None }
    }
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
            let node = state.now.0.len();
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
        let node = self.now.0.len();
        self.act(Op::Node { folder });
        self.act(Op::Link { folder: above, name: name.to_owned(), node });
        Ok(node)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.now.find(from).ok_or(io::ErrorKind::NotFound)?;
        let ((from_folder, from_name), (to_folder, to_name)) = (self.place(from)?, self.place(to)?);
        if let Some(old) = self.now.find(to)
            && let Content::Folder(names) = &self.now.0[old]
            && !names.is_empty()
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.act(Op::Rename { from: (from_folder, from_name.into()), to: (to_folder, to_name.into()), node });
        Ok(())
    }

    fn remove(&mut self, path: &Path, folder: bool) -> io::Result<()> {
        let node = self.now.find(path).ok_or(io::ErrorKind::NotFound)?;
        let (above, name) = self.place(path)?;
        match (&self.now.0[node], folder) {
            (Content::File(_), false) => {}
            (Content::Folder(names), true) if names.is_empty() => {}
            (Content::Folder(_), true) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
            (Content::Folder(_), false) => return Err(io::ErrorKind::IsADirectory.into()),
            (Content::File(_), true) => return Err(io::ErrorKind::NotADirectory.into()),
        }
        self.act(Op::Unlink { folder: above, name: name.to_owned() });
        Ok(())
    }
}

impl Tree {
    fn find(&self, path: &Path) -> Option<Node> {
        let mut node = ROOT;
        for part in path.components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => node = *self.folder(node).ok()?.get(name)?,
                Component::ParentDir | Component::Prefix(_) => return None,
            }
        }
        Some(node)
    }

    fn folder(&self, node: Node) -> io::Result<&BTreeMap<OsString, Node>> {
        match &self.0[node] {
            Content::Folder(names) => Ok(names),
            Content::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&self, node: Node) -> io::Result<&Vec<u8>> {
        match &self.0[node] {
            Content::File(bytes) => Ok(bytes),
            Content::Folder(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Node { folder: true } => self.0.push(Content::Folder(BTreeMap::new())),
            Op::Node { folder: false } => self.0.push(Content::File(Vec::new())),
            Op::Append { node, bytes } => self.write(*node, |file| file.extend_from_slice(bytes)),
            Op::Truncate { node, length } => self.write(*node, |file| file.resize(*length, 0)),
            Op::Link { folder, name, node } => self.name(*folder, |names| {
                names.insert(name.clone(), *node);
            }),
            Op::Unlink { folder, name } => self.name(*folder, |names| {
                names.remove(name);
            }),
            Op::Rename { from, to, node } => {
                self.name(from.0, |names| {
                    if names.get(&from.1) == Some(node) {
                        names.remove(&from.1);
                    }
                });
                self.name(to.0, |names| {
                    names.insert(to.1.clone(), *node);
                });
            }
            Op::SyncFile { .. } | Op::SyncFolder { .. } => {}
        }
    }

    fn write(&mut self, node: Node, change: impl FnOnce(&mut Vec<u8>)) {
        if let Content::File(bytes) = &mut self.0[node] {
            change(bytes);
        }
    }

    fn name(&mut self, folder: Node, change: impl FnOnce(&mut BTreeMap<OsString, Node>)) {
        if let Content::Folder(names) = &mut self.0[folder] {
            change(names);
        }
    }

    fn image(&self) -> Image {
        let mut image = Image::new();
        let mut open = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, node)) = open.pop() {
            match &self.0[node] {
                Content::File(bytes) => image.insert(path, Some(bytes.clone())),
                Content::Folder(names) => {
                    open.extend(names.iter().map(|(name, node)| (path.join(name), *node)));
                    image.insert(path, None)
                }
            };
        }
        image
    }
}

/// Every image that a power cut after `log` may leave, where its first `from` operations are durable anyhow.
fn images(log: &[Op], from: usize) -> BTreeSet<Image> {
    let names: Vec<usize> =
        (from..log.len()).filter(|&at| is_naming(&log[at]) && !names_are_synced(log, at)).collect();
    let dirty: Vec<Node> = (from..log.len())
        .filter(|&at| written(&log[at]).is_some_and(|node| !is_synced(log, at, node)))
        .filter_map(|at| written(&log[at]))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let tears = tears(dirty.len());
    let mut images = BTreeSet::new();
    for lost in lost_names(&names) {
        for tear in &tears {
            images.insert(image_after(log, from, &lost, &dirty, tear));
        }
    }
    images
}

fn image_after(log: &[Op], from: usize, lost: &BTreeSet<usize>, dirty: &[Node], tears: &[Tear]) -> Image {
    let mut tree = State::default().now;
    for (at, op) in log.iter().enumerate() {
        let torn = written(op).filter(|&node| at >= from && !is_synced(log, at, node));
        if lost.contains(&at) {
            continue;
        }
        match torn.and_then(|node| dirty.iter().position(|&other| other == node)).map(|index| tears[index]) {
            None | Some(Tear::All) => tree.apply(op),
            Some(Tear::None) => {}
            Some(Tear::Middle) => tree.apply(&halved(op, log, at)),
            Some(Tear::LengthOnly) => tree.apply(&zeroed(op)),
        }
    }
    tree.image()
}

/// The last write of a file, torn in its middle; an earlier one as it is.
fn halved(op: &Op, log: &[Op], at: usize) -> Op {
    match op {
        Op::Append { node, bytes } if !log[at + 1..].iter().any(|later| written(later) == Some(*node)) => {
            Op::Append { node: *node, bytes: bytes[..bytes.len() / 2].to_vec() }
        }
        other => other.clone(),
    }
}

/// A write of which only the length came to the disk.
fn zeroed(op: &Op) -> Op {
    match op {
        Op::Append { node, bytes } => Op::Append { node: *node, bytes: vec![0; bytes.len()] },
        other => other.clone(),
    }
}

fn is_naming(op: &Op) -> bool {
    matches!(op, Op::Link { .. } | Op::Unlink { .. } | Op::Rename { .. })
}

fn written(op: &Op) -> Option<Node> {
    match op {
        Op::Append { node, .. } | Op::Truncate { node, .. } => Some(*node),
        _ => None,
    }
}

fn is_synced(log: &[Op], at: usize, node: Node) -> bool {
    log[at..].iter().any(|op| matches!(op, Op::SyncFile { node: synced } if *synced == node))
}

fn names_are_synced(log: &[Op], at: usize) -> bool {
    let synced =
        |folder: Node| log[at..].iter().any(|op| matches!(op, Op::SyncFolder { folder: f } if *f == folder));
    match &log[at] {
        Op::Link { folder, .. } | Op::Unlink { folder, .. } => synced(*folder),
        Op::Rename { from, to, .. } => synced(from.0) && synced(to.0),
        _ => true,
    }
}

/// The sets of naming operations that may be lost.
fn lost_names(names: &[usize]) -> BTreeSet<BTreeSet<usize>> {
    if names.len() <= ALL_SUBSETS {
        return (0..1u32 << names.len())
            .map(|bits| {
                names.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, at)| *at).collect()
            })
            .collect();
    }
    let mut sets = BTreeSet::new();
    for i in 0..=names.len() {
        sets.insert(names[i..].iter().copied().collect());
        sets.insert(names.iter().enumerate().filter(|(j, _)| *j == i).map(|(_, at)| *at).collect());
        sets.insert(names.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, at)| *at).collect());
    }
    sets
}

/// The ways in which so many files may be torn.
fn tears(files: usize) -> Vec<Vec<Tear>> {
    const WAYS: [Tear; 4] = [Tear::None, Tear::All, Tear::Middle, Tear::LengthOnly];
    if files > ALL_TEARS {
        return WAYS.iter().map(|way| vec![*way; files]).collect();
    }
    (0..files).fold(vec![Vec::new()], |sets, _| {
        sets.iter().flat_map(|set| WAYS.map(|way| [set.as_slice(), &[way]].concat())).collect()
    })
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
        let entry =
            |(name, node): (&OsString, &Node)| Entry { name: name.clone(), kind: state.now.kind(*node) };
        Ok(names.iter().map(entry).collect())
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

impl Tree {
    fn kind(&self, node: Node) -> Kind {
        match &self.0[node] {
            Content::File(_) => Kind::File,
            Content::Folder(_) => Kind::Folder,
        }
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
