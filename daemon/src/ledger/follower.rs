//! The thread that keeps the view up with the tree.
//!
//! sled may be slow, full or broken; an acknowledgement waits for none of that. Each commit leaves its changes here, by
//! node, so that what piles up is never more than the tree; the thread takes all that is there and writes it in one
//! transaction. When sled fails, the thread lets it go and builds a new view out of the tree, now or when it works again.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::hindrances::{Hindrances, Waits};
use super::journal::Point;
use super::node::Change;
use super::tree::Tree;
use super::view::{Changes, View, ViewError, set_aside};

/// How long a commit may go without being synced in the view; it is in the journal all the while.
const SYNC: Duration = Duration::from_secs(5);

/// How long the end waits for the thread: sled may hang.
const END: Duration = Duration::from_secs(30);

/// What is to be written.
struct Queue {
    point: Point,
    changes: Changes,
    /// Whether there is a view that these changes lead on from.
    follows: bool,
    closing: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    woken: Condvar,
    tree: Arc<RwLock<Tree>>,
}

/// Finds the view to go on with, if there is one.
pub type Load = Box<dyn FnOnce() -> Option<View> + Send>;

/// Hands changes to the thread.
pub struct Follower {
    shared: Arc<Shared>,
    ended: Mutex<Option<Receiver<()>>>,
}

impl Follower {
    /// Starts the thread. It has `load` find the view that is where the tree is, at `now`; without one a view is built, and
    /// where that fails it is tried again after `retry`.
    pub fn start(
        path: PathBuf,
        tree: Arc<RwLock<Tree>>,
        load: Load,
        now: Point,
        retry: Duration,
        hindrances: Hindrances,
    ) -> Self {
        let queue = Queue { point: now, changes: Changes::new(), follows: true, closing: false };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), woken: Condvar::new(), tree });
        let (end, ended) = channel();
        let worker =
            Worker { shared: shared.clone(), path, retry, view: None, hindrances, is_failing: false };
        let started = std::thread::Builder::new().name("view".to_owned()).spawn(move || {
            worker.run(load);
            drop(end);
        });
        if let Err(error) = started {
            tracing::warn!(%error, "the copy of the version tree in sled is not kept: no thread could be started");
            shared.lock().follows = false;
        }
        Self { shared, ended: Mutex::new(Some(ended)) }
    }

    /// Changes the tree, and has the view follow.
    pub fn advance(&self, point: Point, changes: Vec<Change>, apply: impl FnOnce(&mut Tree)) {
        let mut queue = self.shared.lock();
        apply(&mut self.shared.tree.write().unwrap_or_else(PoisonError::into_inner));
        queue.point = point;
        if queue.follows {
            merge(&mut queue.changes, changes);
            self.shared.woken.notify_one();
        }
    }

    /// Has everything written and synced, and ends the thread.
    pub fn close(&self) {
        let Some(ended) = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        self.shared.lock().closing = true;
        self.shared.woken.notify_one();
        if ended.recv_timeout(END) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(
                "the copy of the version tree in sled did not close; it is checked at the next start"
            );
        }
    }
}

/// Adds the changes of a commit: the last one of a node counts.
pub fn merge(all: &mut Changes, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Put(node) => all.insert(node.key(), Some(node)),
            Change::Remove(key) => all.insert(key, None),
        };
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to write or for the end, at most until a moment.
    fn wait(&self, until: Instant) -> MutexGuard<'_, Queue> {
        let mut queue = self.lock();
        while queue.changes.is_empty() && !queue.closing {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                break;
            };
            queue = self.woken.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue
    }
}

struct Worker {
    shared: Arc<Shared>,
    path: PathBuf,
    retry: Duration,
    view: Option<View>,
    hindrances: Hindrances,
    /// Nothing was well since a failure.
    is_failing: bool,
}

impl Worker {
    fn run(mut self, load: Load) {
        self.view = load();
        loop {
            let ended = match self.view.take() {
                Some(view) => self.follow(view),
                None => self.build(),
            };
            if ended {
                return;
            }
        }
    }

    /// Writes what comes until the end, which is true, or a failure.
    fn follow(&mut self, mut view: View) -> bool {
        let mut synced = Instant::now();
        let mut is_dirty = false;
        loop {
            let until = if is_dirty { synced + SYNC } else { Instant::now() + Duration::from_secs(3600) };
            let (point, changes, closing) = {
                let mut queue = self.shared.wait(until);
                (queue.point, std::mem::take(&mut queue.changes), queue.closing)
            };
            let mut outcome = Ok(());
            if !changes.is_empty() || point != view.point() {
                outcome = view.apply(point, &changes);
                is_dirty = true;
            }
            if outcome.is_ok() && is_dirty && (closing || synced.elapsed() >= SYNC) {
                outcome = view.sync();
                is_dirty = false;
                synced = Instant::now();
            }
            if let Err(error) = outcome {
                view.let_go();
                self.fail(&error);
                return closing;
            }
            if closing {
                view.let_go();
                return true;
            }
        }
    }

    /// Builds a view of the tree as it is, at the end too unless that failed before. False if it is there, or is to be
    /// tried again; true at the end.
    fn build(&mut self) -> bool {
        let (point, tree) = {
            let mut queue = self.shared.lock();
            if queue.closing && self.is_failing {
                return true;
            }
            queue.changes = Changes::new();
            queue.follows = true;
            (queue.point, self.shared.tree.read().unwrap_or_else(PoisonError::into_inner).clone())
        };
        match View::build(&self.path, point, &tree) {
            Ok(view) => {
                tracing::info!(position = point.position, "the version tree's copy in sled is built");
                self.is_failing = false;
                self.hindrances.goes_on(Waits::View);
                self.view = Some(view);
                false
            }
            Err(error) => {
                self.fail(&error);
                self.shared.wait(Instant::now() + self.retry).closing
            }
        }
    }

    /// Goes on without a view, and says so.
    fn fail(&mut self, error: &ViewError) {
        let mut queue = self.shared.lock();
        queue.follows = false;
        queue.changes = Changes::new();
        drop(queue);
        self.hindrances.waits(Waits::View, error);
        self.is_failing = true;
        if matches!(error, ViewError::Damaged(_)) && self.path.exists() {
            match set_aside(&self.path) {
                Ok(to) => tracing::warn!(to = %to.display(), "the damaged copy is set aside"),
                Err(error) => tracing::warn!(%error, "the damaged copy cannot be set aside"),
            }
        }
    }
}
