//! A systemd of our own: see `box.sh`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// It runs; it ends with the test.
pub struct Systemd {
    name: String,
}

impl Systemd {
    /// Boots it, with the package installed.
    pub fn with_the_package(name: &str) -> Self {
        let (systemd, repository) = Self::booted(name);
        systemd.run(&["dpkg", "--install", repository.join("target/lrpath.deb").to_str().unwrap()]);
        systemd
    }

    /// Boots it, with the service installed by `make install`.
    pub fn with_the_service(name: &str) -> Self {
        let (systemd, repository) = Self::booted(name);
        systemd.run(&["make", "-s", "-C", repository.to_str().unwrap(), "install", "PREFIX=/usr"]);
        systemd.run(&["systemd-sysusers"]);
        systemd.run(&["systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/lrpath.conf"]);
        systemd.run(&["systemctl", "daemon-reload"]);
        systemd
    }

    fn booted(name: &str) -> (Self, PathBuf) {
        let systemd = Self { name: format!("{name}-{}", std::process::id()) };
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
        let started = systemd.script(&["start", repository.to_str().unwrap()]).output().unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        (systemd, repository)
    }

    fn script(&self, arguments: &[&str]) -> Command {
        let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "systemd/box.sh"].iter().collect();
        let mut command = Command::new(script);
        command.args(arguments).env("BOX_NAME", &self.name);
        command
    }

    /// Runs a command in it, whatever comes out.
    pub fn tried(&self, words: &[&str]) -> Output {
        self.script(&[&["run"], words].concat()).output().unwrap()
    }

    /// What a command in it prints; it must succeed.
    pub fn run(&self, words: &[&str]) -> String {
        let output = self.tried(words);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// As [`Systemd::run`], as another user.
    pub fn run_as(&self, user: &str, words: &[&str]) -> String {
        self.run(&[&["runuser", "-u", user, "--"], words].concat())
    }

    /// Writes a file as a user, whole or not at all.
    pub fn write_as(&self, user: &str, path: &str, bytes: &[u8]) {
        let shell = format!("cat > {path}.part && mv {path}.part {path}");
        let mut command = self.script(&["run", "runuser", "-u", user, "--", "sh", "-c", &shell]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        assert!(child.wait().unwrap().success(), "{path} is written");
    }

    /// A property of the service.
    pub fn property(&self, name: &str) -> String {
        self.run(&["systemctl", "show", "--value", "--property", name, "lrpathd"]).trim().to_owned()
    }

    /// Waits until something is so.
    pub fn wait(&self, what: &str, seconds: u64, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}: it never came\n{}", self.journal());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the service has said.
    pub fn journal(&self) -> String {
        self.run(&["journalctl", "--unit", "lrpathd", "--no-pager", "--output", "cat", "--lines", "60"])
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = self.script(&["stop"]).status();
    }
}
