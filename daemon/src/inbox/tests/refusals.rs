//! What the system refuses, watches and permissions, holds nothing up but what it is about.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use notify::Watcher;

use super::{PATIENCE, Running, State, without_privileges};
use crate::inbox::watch::{self, MakeWatcher};
use crate::inbox::{Inbox, InboxSettings, Message};
use crate::ledger::SystemClock;

/// A kernel that has no more than so many watches to give; none: not even a watcher.
fn stingy(watches: Option<usize>) -> MakeWatcher {
    struct Stingy {
        kernel: Box<dyn Watcher + Send>,
        left: usize,
    }

    impl Watcher for Stingy {
        fn new<F: notify::EventHandler>(_: F, _: notify::Config) -> notify::Result<Self> {
            Err(notify::Error::generic("it is made by hand"))
        }

        fn watch(&mut self, path: &Path, mode: notify::RecursiveMode) -> notify::Result<()> {
            self.left =
                self.left.checked_sub(1).ok_or(notify::Error::new(notify::ErrorKind::MaxFilesWatch))?;
            self.kernel.watch(path, mode)
        }

        fn unwatch(&mut self, path: &Path) -> notify::Result<()> {
            self.kernel.unwatch(path)
        }

        fn kind() -> notify::WatcherKind {
            notify::WatcherKind::NullWatcher
        }
    }

    Arc::new(move |handler| {
        let too_many_open_files = || notify::Error::io(std::io::Error::from_raw_os_error(24));
        let left = watches.ok_or_else(too_many_open_files)?;
        Ok(Box::new(Stingy { kernel: (watch::kernel())(handler)?, left }))
    })
}

/// What was said in the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + 'static {
        let log = self.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn where_the_kernel_gives_no_watches_files_are_found_by_scans_and_the_log_says_so() {
    for (watches, why) in [
        (None, "it cannot be watched: Too many open files"),
        (Some(0), "cannot be watched: OS file watch limit reached"),
        (Some(1), "/sub` cannot be watched: OS file watch limit reached"),
    ] {
        let state = State::given();
        fs::create_dir(state.data().join("sub")).unwrap();
        let log = Log::default();
        let subscriber = log.subscriber();
        let settings = InboxSettings { scan_every: Duration::from_secs(3600), ..state.settings() };
        let (mut inbox, handle) = Inbox::new(settings, state.ledger.clone(), Arc::new(SystemClock));
        inbox.make_watcher = stingy(watches);
        let sender = inbox.sender.clone();
        let thread =
            std::thread::spawn(move || tracing::subscriber::with_default(subscriber, || inbox.live()));
        let (stop, _) = tokio::sync::watch::channel(false);
        let running = Running { state: &state, handle, stop, thread: None };
        // The first scan is over: what comes now is not found by it.
        running.wait_until("the end of the first scan", || running.handle.is_quiet());
        fs::write(state.data().join("sub/a.txt"), "the cat").unwrap();
        running.wait_for_shards(1);
        fs::write(state.data().join("sub/b.txt"), "the hat").unwrap();
        running.wait_for_shards(2);
        sender.send(Message::Stop).unwrap();
        thread.join().unwrap().unwrap();
        let told: Vec<String> =
            log.text().lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect();
        assert_eq!(told.len(), 1, "said once: {told:?}");
        assert!(told[0].contains("the watched folder is scanned often instead"), "{told:?}");
        assert!(told[0].contains(why), "{told:?}");
    }
}

#[test]
fn a_file_that_may_not_be_read_is_named_blocks_its_cut_and_is_taken_when_it_may() {
    let state = State::given();
    state.put("a.txt", "the cat");
    fs::set_permissions(state.data().join("a.txt"), fs::Permissions::from_mode(0o000)).unwrap();
    let inbox = state.start_with(|_| without_privileges());
    let end = Instant::now() + PATIENCE;
    let blocked = loop {
        match inbox.handle.waiting().into_iter().find(|file| file.blocked) {
            Some(blocked) => break blocked,
            None => assert!(Instant::now() < end, "{:?}", inbox.handle.waiting()),
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert_eq!(blocked.name, "a.txt");
    for word in ["Permission denied", "Let the daemon's user read it", "it is tried again in"] {
        assert!(blocked.why.contains(word), "{}", blocked.why);
    }
    let cut = inbox.handle.request_cut(None).unwrap();
    state.put("b.txt", "the hat");
    while !inbox.handle.waiting().iter().any(|file| file.name == "b.txt" && file.why.contains("after cut")) {
        assert!(Instant::now() < end, "{:?}", inbox.handle.waiting());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(state.ledger.read(|tree| tree.cut_files(cut).eq(["a.txt"])), "the cut waits");
    assert!(state.reasons().is_empty(), "it is not the shard's fault");
    fs::set_permissions(state.data().join("a.txt"), fs::Permissions::from_mode(0o400)).unwrap();
    inbox.wait_for_shards(1);
    assert_eq!(state.names(), ["a.txt"]);
    assert!(state.ledger.read(|tree| tree.cut_files(cut).next().is_none()));
    inbox.end();
}
