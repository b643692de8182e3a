//! Hints from the kernel.
//!
//! Events are lost when the queue overflows, say nothing of files that came with a folder, and fall silent when the
//! folder itself is replaced. So nothing is concluded from them: each only makes the inbox look, at one file or at all.
//! Watches are set folder by folder, by the scan that is about to read the folder: whatever comes later is hinted at,
//! whatever was there before is seen. Where the kernel gives no watches, or none that can be trusted, the inbox scans
//! more often instead.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// What an event makes the inbox do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Look at a file that was just renamed or moved into place.
    MovedIn(PathBuf),
    /// Look at a file.
    Look(PathBuf),
    /// Look at everything.
    Scan,
    /// A folder is gone, and its watch with it: look at everything.
    FolderGone(PathBuf),
}

/// What an event hints at; nothing where it is our own reading.
pub fn hint(event: Result<Event, notify::Error>) -> Option<Hint> {
    let Ok(event) = event else { return Some(Hint::Scan) };
    if event.need_rescan() {
        return Some(Hint::Scan);
    }
    let look = event.paths.first().cloned().map_or(Hint::Scan, Hint::Look);
    Some(match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => look,
        // From and To come as events of their own.
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return None,
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => match look {
            Hint::Look(path) => Hint::MovedIn(path),
            other => other,
        },
        EventKind::Modify(
            ModifyKind::Name(RenameMode::From) | ModifyKind::Data(_) | ModifyKind::Metadata(_),
        )
        | EventKind::Modify(ModifyKind::Any)
        | EventKind::Create(CreateKind::File | CreateKind::Any)
        | EventKind::Remove(RemoveKind::File) => look,
        EventKind::Remove(RemoveKind::Folder) => match look {
            Hint::Look(path) => Hint::FolderGone(path),
            other => other,
        },
        EventKind::Modify(_)
        | EventKind::Create(_)
        | EventKind::Remove(_)
        | EventKind::Any
        | EventKind::Other => Hint::Scan,
    })
}

/// What tells a folder from its successor: a number of a file is given again, and its birth tells the two apart where it
/// is known.
type Identity = (u64, u64, Option<SystemTime>);

/// Takes what a watcher tells.
pub type Handler = Box<dyn Fn(Result<Event, notify::Error>) + Send>;

/// Makes the watcher that sets watches: the kernel's, or one that plays it.
pub type MakeWatcher = Arc<dyn Fn(Handler) -> notify::Result<Box<dyn Watcher + Send>> + Send + Sync>;

/// The kernel's own watcher.
pub fn kernel() -> MakeWatcher {
    Arc::new(|handler: Handler| {
        let config = Config::default().with_follow_symlinks(false);
        Ok(Box::new(RecommendedWatcher::new(handler, config)?))
    })
}

/// The watches on the folder and on those below it.
pub struct Watch {
    watcher: Option<Box<dyn Watcher + Send>>,
    folders: HashMap<PathBuf, Identity>,
    polls: Option<String>,
}

impl Watch {
    /// No watch yet; hints will be given to `push`, which must be quick.
    pub fn new(root: &Path, make: &MakeWatcher, push: impl Fn(Hint) + Send + 'static) -> Self {
        let handler: Handler = Box::new(move |event| {
            if let Some(hint) = hint(event) {
                push(hint);
            }
        });
        let mut watch = Self { watcher: None, folders: HashMap::new(), polls: None };
        if let Some(system) = remote_file_system(root) {
            watch.poll(format!("it lies on {system}, where others' changes are not reported"));
            return watch;
        }
        match make(handler) {
            Ok(watcher) => watch.watcher = Some(watcher),
            Err(error) => watch.poll(format!("it cannot be watched: {error}")),
        }
        watch
    }

    /// Watches a folder, if it is not watched already or is another one than before.
    pub fn enter(&mut self, folder: &Path, metadata: &Metadata) {
        let identity = (metadata.dev(), metadata.ino(), metadata.created().ok());
        let Some(watcher) = self.watcher.as_mut().filter(|_| self.folders.get(folder) != Some(&identity))
        else {
            return;
        };
        if self.folders.remove(folder).is_some() {
            // Another folder stood here; its watch may have gone with it.
            let _ = watcher.unwatch(folder);
        }
        match watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => _ = self.folders.insert(folder.to_owned(), identity),
            Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
            Err(error) => self.poll(format!("`{}` cannot be watched: {error}", folder.display())),
        }
    }

    /// A folder is gone: one that takes its name is to be watched anew.
    pub fn forget(&mut self, folder: &Path) {
        self.folders.remove(folder);
    }

    /// Forgets folders that are gone, so that their names can be watched again.
    pub fn keep(&mut self, entered: impl Fn(&Path) -> bool) {
        let gone: Vec<PathBuf> = self.folders.keys().filter(|folder| !entered(folder)).cloned().collect();
        for folder in gone {
            self.folders.remove(&folder);
            if let Some(watcher) = &mut self.watcher {
                let _ = watcher.unwatch(&folder);
            }
        }
    }

    /// Why the folder is scanned often instead of watched, if it is.
    pub fn polls(&self) -> Option<&str> {
        self.polls.as_deref()
    }

    fn poll(&mut self, why: String) {
        if self.polls.is_none() {
            tracing::warn!(%why, "the watched folder is scanned often instead");
            self.polls = Some(why);
        }
    }
}

/// The kind of a file system on which other machines may write unseen.
fn remote_file_system(root: &Path) -> Option<&'static str> {
    let kind = rustix::fs::statfs(root).ok()?.f_type;
    Some(match kind & 0xFFFF_FFFF {
        0x6969 => "NFS",
        0xFF53_4D42 | 0xFE53_4D42 | 0x517B => "SMB",
        0x0102_1997 => "9P",
        0x6573_5546 => "FUSE",
        0x00C3_6400 => "Ceph",
        0x0BD0_0BD0 => "Lustre",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{DataChange, Flag};
    use std::fs;
    use std::sync::mpsc;
    use std::time::Duration;

    fn event(kind: EventKind, paths: &[&str]) -> Result<Event, notify::Error> {
        Ok(paths.iter().fold(Event::new(kind), |event, path| event.add_path(path.into())))
    }

    #[test]
    fn an_overflow_comes_without_a_path_and_means_a_scan() {
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(hint(Ok(overflow)), Some(Hint::Scan));
        assert_eq!(hint(Err(notify::Error::generic("broken"))), Some(Hint::Scan));
        assert_eq!(hint(event(EventKind::Create(CreateKind::Folder), &["/d"])), Some(Hint::Scan));
        let gone = hint(event(EventKind::Remove(RemoveKind::Folder), &["/d"]));
        assert_eq!(gone, Some(Hint::FolderGone("/d".into())));
    }

    #[test]
    fn only_a_rename_moves_a_file_in() {
        let renamed = |mode| EventKind::Modify(ModifyKind::Name(mode));
        assert_eq!(hint(event(renamed(RenameMode::To), &["/d/a"])), Some(Hint::MovedIn("/d/a".into())));
        assert_eq!(hint(event(renamed(RenameMode::From), &["/d/.a"])), Some(Hint::Look("/d/.a".into())));
        assert_eq!(hint(event(renamed(RenameMode::Both), &["/d/.a", "/d/a"])), None);
        let looks = [
            EventKind::Create(CreateKind::File),
            EventKind::Modify(ModifyKind::Data(DataChange::Any)),
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
            EventKind::Remove(RemoveKind::File),
        ];
        for kind in looks {
            assert_eq!(hint(event(kind, &["/d/a"])), Some(Hint::Look("/d/a".into())), "{kind:?}");
        }
        assert_eq!(hint(event(EventKind::Access(AccessKind::Open(AccessMode::Read)), &["/d/a"])), None);
    }

    #[test]
    fn a_folder_that_was_replaced_is_watched_again() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("data");
        fs::create_dir(&root).unwrap();
        let (sender, hints) = mpsc::channel();
        let mut watch = Watch::new(&root, &kernel(), move |hint| sender.send(hint).unwrap());
        let hears_of = |name: &str| {
            fs::write(root.join(name), "text").unwrap();
            let heard = |hint: Hint| hint == Hint::Look(root.join(name));
            while let Ok(hint) = hints.recv_timeout(Duration::from_secs(10)) {
                if heard(hint) {
                    return true;
                }
            }
            false
        };
        watch.enter(&root, &fs::metadata(&root).unwrap());
        assert!(hears_of("first"));
        fs::rename(&root, folder.path().join("old")).unwrap();
        fs::create_dir(&root).unwrap();
        watch.enter(&root, &fs::metadata(&root).unwrap());
        assert!(hears_of("second"));
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir(&root).unwrap();
        watch.enter(&root, &fs::metadata(&root).unwrap());
        assert!(hears_of("third"));
        assert_eq!(watch.polls(), None);
    }
}
