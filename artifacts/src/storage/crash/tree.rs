//! The files and folders of a [`CrashDisk`](super::CrashDisk), and what is done to them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::super::Kind;

/// What a path holds: `None` for a folder.
pub(super) type Image = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// The number of a file or folder, in the order in which they came to be.
pub(super) type Node = usize;

/// The root folder's node.
const ROOT: Node = 0;

/// One thing that was done.
#[derive(Debug, Clone)]
pub(super) enum Op {
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
pub(super) struct Tree(Vec<Content>);

impl Default for Tree {
    fn default() -> Self {
        Self(vec![Content::Folder(BTreeMap::new())])
    }
}

impl Tree {
    /// The number that the next new node gets.
    pub(super) fn next(&self) -> Node {
        self.0.len()
    }

    pub(super) fn find(&self, path: &Path) -> Option<Node> {
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

    pub(super) fn folder(&self, node: Node) -> io::Result<&BTreeMap<OsString, Node>> {
        match &self.0[node] {
            Content::Folder(names) => Ok(names),
            Content::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file(&self, node: Node) -> io::Result<&Vec<u8>> {
        match &self.0[node] {
            Content::File(bytes) => Ok(bytes),
            Content::Folder(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn apply(&mut self, op: &Op) {
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

    pub(super) fn image(&self) -> Image {
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

    pub(super) fn kind(&self, node: Node) -> Kind {
        match &self.0[node] {
            Content::File(_) => Kind::File,
            Content::Folder(_) => Kind::Folder,
        }
    }
}
