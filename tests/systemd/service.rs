//! What an operator does with the service, and what happens to it.

use std::time::{Duration, Instant};

use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::state::{MODEL, State, config};
use harness::text::sentences;
use serde_json::{Value, json};

use crate::systemd::Systemd;

const STATE: &str = "/var/lib/lrpath";
const ADDRESS: &str = "127.0.0.1:7720";
const TABLES: &str = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 500";

fn given() -> String {
    config("seed = 9", TABLES)
}

/// A state as the manual says how to make one, and a user of the group.
fn made(systemd: &Systemd) {
    systemd.run(&["mkdir", "-m", "755", "/tmp/given"]);
    let listening = format!("{}\n[control]\nlisten = \"{ADDRESS}\"\n", given());
    systemd.write_as("root", "/tmp/given/lrpathd.toml", listening.as_bytes());
    systemd.write_as("root", "/tmp/given/model.json", MODEL.as_bytes());
    systemd.run_as("lrpath", &["lrpathctl", "init", "--state", STATE, "--config", "/tmp/given/lrpathd.toml"]);
    systemd.run(&["useradd", "--groups", "lrpath", "writer"]);
}

fn ask(systemd: &Systemd, words: &[&str]) -> Value {
    let line = [&["lrpathctl"], words, &["--state", STATE, "--json"]].concat();
    serde_json::from_str(&systemd.run_as("writer", &line)).unwrap()
}

fn released(systemd: &Systemd) -> usize {
    let versions = ask(systemd, &["versions"]);
    versions.as_array().unwrap().iter().filter(|version| !version["release"].is_null()).count()
}

fn accepted(systemd: &Systemd, count: u64) {
    systemd.wait("acceptance", 60, || ask(systemd, &["status"])["shards"]["accepted"] == json!(count));
}

/// The digest of a version's weights.
fn weights(systemd: &Systemd, version: u32) -> String {
    let file = format!("{STATE}/releases/v{version}/model.safetensors");
    blake3::hash(&systemd.tried(&["cat", &file]).stdout).to_hex().to_string()
}

#[test]
fn a_shard_that_another_user_drops_becomes_a_version_under_all_restrictions() {
    let systemd = Systemd::with_the_package("use");
    let verified = systemd.tried(&["systemd-analyze", "verify", "/usr/lib/systemd/system/lrpathd.service"]);
    assert!(
        verified.status.success() && verified.stderr.is_empty() && verified.stdout.is_empty(),
        "{verified:?}"
    );

    // Without a state it says what to run, and is not started again and again.
    assert!(!systemd.tried(&["systemctl", "start", "lrpathd"]).status.success());
    assert_eq!((systemd.property("ExecMainStatus"), systemd.property("NRestarts")), ("5".into(), "0".into()));
    assert!(systemd.journal().contains("holds no state") && systemd.journal().contains("lrpathctl init"));

    made(&systemd);
    systemd.run(&["systemctl", "start", "lrpathd"]);
    // A start that has returned is a daemon that answers.
    assert_eq!(ask(&systemd, &["status"])["shards"]["accepted"], json!(0));
    systemd.write_as("writer", &format!("{STATE}/data/january.txt"), sentences(1, 20_000).as_bytes());
    accepted(&systemd, 1);
    ask(&systemd, &["cut", "january"]);
    systemd.wait("the version", 60, || released(&systemd) == 1);
    systemd.wait("its words", 20, || systemd.property("StatusText") == "waits for shards");

    let exposure = systemd.run(&["systemd-analyze", "security", "--no-pager", "lrpathd.service"]);
    let level = exposure.split("exposure level for lrpathd.service: ").nth(1).unwrap();
    let level: f64 = level.split(' ').next().unwrap().parse().unwrap();
    assert!(level <= 1.0, "{level}");
    assert_eq!(systemd.property("DropInPaths"), "", "the very unit, as it is installed");

    // A field of a line can be asked for in the journal.
    let about =
        ["journalctl", "--no-pager", "--output", "cat", "LRPATH_VERSION=1", "LRPATH_PARADIGM=path-switching"];
    assert_eq!(systemd.run(&about).trim(), "a version is public");

    // Who is not in the group gets nothing.
    systemd.run(&["useradd", "stranger"]);
    let stranger = ["runuser", "-u", "stranger", "--", "lrpathctl", "status", "--state", STATE];
    assert!(!systemd.tried(&stranger).status.success());
    let stranger = format!("echo x > {STATE}/data/x.txt");
    assert!(!systemd.tried(&["runuser", "-u", "stranger", "--", "sh", "-c", &stranger]).status.success());

    served_over_tcp(&systemd);
    reloaded(&systemd);
    upgraded(&systemd);
    given_more(&systemd);
    not_its_own(&systemd);

    for action in ["--remove", "--purge"] {
        systemd.run(&["dpkg", action, "lrpath"]);
        assert!(!systemd.tried(&["test", "-e", "/usr/bin/lrpathd"]).status.success());
        assert_eq!(trainers(&systemd), "");
        systemd.run(&["test", "-e", &format!("{STATE}/releases/v1/model.safetensors")]);
        systemd.run(&["test", "-e", &format!("{STATE}/journal")]);
    }
}

/// The page, the metrics and the API, under the unit's own restrictions.
fn served_over_tcp(systemd: &Systemd) {
    let get = |path: &str| systemd.run(&["curl", "--silent", "--fail", &format!("http://{ADDRESS}{path}")]);
    assert!(get("/").contains("<title>lrpathd</title>"));
    assert!(get("/planner").contains("<title>lrpath planner</title>"));
    assert!(get("/metrics").contains("lrpath_versions{paradigm=\"path-switching\",state=\"released\"} 1.0"));
    let write =
        ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--request", "POST"];
    assert_eq!(systemd.run(&[&write[..], &[&format!("http://{ADDRESS}/v1/pause")]].concat()), "403");
}

/// `systemctl reload` takes what is sound, and tells what is not.
fn reloaded(systemd: &Systemd) {
    let file = format!("{STATE}/lrpathd.toml");
    let text = systemd.run(&["cat", &file]);
    let before = systemd.property("MainPID");
    systemd.write_as("lrpath", &file, text.replace("every = 500", "every = 400").as_bytes());
    systemd.run(&["systemctl", "reload", "lrpathd"]);
    assert!(systemd.journal().contains("checkpoints.every is 400 now, and was 500"), "{}", systemd.journal());
    systemd.write_as("lrpath", &file, text.replace("every = 500", "evry = 400").as_bytes());
    assert!(!systemd.tried(&["systemctl", "reload", "lrpathd"]).status.success());
    assert!(systemd.journal().contains("`checkpoints.every` was probably meant"));
    systemd.write_as("lrpath", &file, text.as_bytes());
    assert_eq!((systemd.property("ActiveState").as_str(), systemd.property("MainPID")), ("active", before));
}

/// What an operator may give it beside the state: a configuration under /etc, a socket under /run, and all the drop-ins.
fn given_more(systemd: &Systemd) {
    let own = format!("{STATE}/lrpathd.toml");
    let before = systemd.run(&["cat", &own]);
    let after = before
        .replace("[data]\n", "[data]\nfolder = \"/srv/shards\"\n")
        .replace("[control]\n", "[control]\nsocket = \"/run/lrpath/control.sock\"\n");
    systemd.write_as("root", "/etc/lrpath/lrpathd.toml", after.as_bytes());
    systemd.run(&["ln", "--symbolic", "--force", "/etc/lrpath/lrpathd.toml", &own]);
    systemd.run(&["install", "-d", "-m", "2770", "-o", "lrpath", "-g", "lrpath", "/srv/shards"]);
    for name in ["gpu", "data-elsewhere", "hooks"] {
        let from = format!("/usr/share/lrpath/systemd/{name}.conf");
        let to = format!("/etc/systemd/system/lrpathd.service.d/{name}.conf");
        systemd.run(&["install", "-D", "-m", "644", &from, &to]);
    }
    systemd.run(&["systemctl", "daemon-reload"]);
    let verified = systemd.tried(&["systemd-analyze", "verify", "/usr/lib/systemd/system/lrpathd.service"]);
    assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
    systemd.run(&["systemctl", "restart", "lrpathd"]);
    assert_eq!(systemd.property("DropInPaths").split(' ').count(), 3);
    assert_eq!(systemd.property("PrivateDevices"), "no");

    systemd.run(&["test", "-S", "/run/lrpath/control.sock"]);
    systemd.write_as("writer", "/srv/shards/march.txt", sentences(4, 2000).as_bytes());
    accepted(systemd, 3);
    let stranger = ["runuser", "-u", "stranger", "--", "test", "-e", "/run/lrpath/control.sock"];
    assert!(!systemd.tried(&stranger).status.success());
    systemd.write_as(
        "root",
        "/etc/lrpath/lrpathd.toml",
        after.replace("every = 500", "every = 300").as_bytes(),
    );
    systemd.run(&["systemctl", "reload", "lrpathd"]);
    assert!(systemd.journal().contains("checkpoints.every is 300 now, and was 500"), "{}", systemd.journal());
    // A backup has the configuration, not a link to it.
    systemd.run(&["lrpathctl", "backup", "--state", STATE, "/srv/kept"]);
    systemd.run(&["test", "!", "-L", "/srv/kept/lrpathd.toml"]);
    systemd.run(&["grep", "--quiet", "every = 300", "/srv/kept/lrpathd.toml"]);

    systemd.run(&["rm", "-r", "/etc/systemd/system/lrpathd.service.d"]);
    systemd.write_as("lrpath", &own, before.as_bytes());
    systemd.run(&["systemctl", "daemon-reload"]);
    systemd.run(&["systemctl", "restart", "lrpathd"]);
    systemd.run(&["test", "!", "-e", "/run/lrpath/control.sock"]);
}

/// A state that belongs to somebody else is told in a sentence, and not tried again and again.
fn not_its_own(systemd: &Systemd) {
    systemd.run(&["systemctl", "stop", "lrpathd"]);
    let journal = format!("{STATE}/journal");
    systemd.run(&["chown", "-R", "root:root", &journal]);
    systemd.run(&["chmod", "700", &journal]);
    assert!(!systemd.tried(&["systemctl", "start", "lrpathd"]).status.success());
    assert_eq!((systemd.property("ExecMainStatus"), systemd.property("NRestarts")), ("5".into(), "0".into()));
    let told = systemd.tried(&["systemctl", "status", "--no-pager", "--full", "lrpathd"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("is not for this user") && told.contains("chown -R lrpath:lrpath"), "{told}");
    systemd.run(&["chown", "-R", "lrpath:lrpath", &journal]);
    systemd.run(&["systemctl", "reset-failed", "lrpathd"]);
    systemd.run(&["systemctl", "start", "lrpathd"]);
    assert_eq!(released(systemd), 2);
}

/// A newer package takes over from a daemon in the middle of a job.
fn upgraded(systemd: &Systemd) {
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/lrpath.deb");
    systemd.run(&["dpkg-deb", "--raw-extract", package, "/tmp/newer"]);
    systemd.run(&["sed", "-i", "s/^Version: .*/Version: 99.0-1/", "/tmp/newer/DEBIAN/control"]);
    systemd.run(&["dpkg-deb", "--build", "-Zgzip", "-z1", "/tmp/newer", "/tmp/newer.deb"]);
    systemd.write_as("writer", &format!("{STATE}/data/february.txt"), sentences(3, 4_000_000).as_bytes());
    accepted(systemd, 2);
    ask(systemd, &["cut", "february"]);
    let step = busy(systemd, 1500);
    let before = systemd.property("MainPID");
    systemd.run(&["dpkg", "--install", "/tmp/newer.deb"]);
    assert_ne!(systemd.property("MainPID"), before, "the newer daemon runs");
    assert_eq!(systemd.property("ActiveState"), "active");
    assert!(busy(systemd, 0) >= step, "the job goes on where it was");
    systemd.wait("the version", 300, || released(systemd) == 2);
}

/// Weights of the same version, made by a daemon that nobody disturbed.
fn undisturbed(text: &str) -> String {
    let state = State::new(&given());
    let daemon = Daemon::start(&state);
    state.drop_file("january.txt", text.as_bytes());
    wait_for(&state, "acceptance", 30, |status| status["shards"]["accepted"] == json!(1));
    state.ask(&["cut", "january"]);
    wait_for_releases(&state, "path-switching", 1, 300);
    daemon.stop();
    state.release_digests()["v1"]["model.safetensors"].clone()
}

/// Steps of some seconds, which a job must have before it when something is done to it.
const LEFT: u64 = 8000;

/// How far the job that runs is, once that is beyond `step` and the job is far from its end.
fn busy(systemd: &Systemd, step: u64) -> u64 {
    let mut reached = 0;
    systemd.wait("a busy trainer", 120, || {
        let status = ask(systemd, &["status"]);
        reached = status["jobs"][0]["step"].as_u64().unwrap_or(0);
        reached > step && status["jobs"][0]["to"].as_u64().unwrap() > reached + LEFT
    });
    reached
}

fn trainers(systemd: &Systemd) -> String {
    String::from_utf8(systemd.tried(&["pgrep", "lrpath-train"]).stdout).unwrap()
}

#[test]
fn stopped_killed_and_hung_it_makes_the_bits_of_a_run_that_nobody_disturbed() {
    let text = sentences(2, 4_000_000);
    let wanted = undisturbed(&text);
    let systemd = Systemd::with_the_service("end");
    made(&systemd);
    // The unit's own patience is a minute.
    systemd.run(&["mkdir", "-p", "/etc/systemd/system/lrpathd.service.d"]);
    let shorter = b"[Service]\nWatchdogSec=3s\n";
    systemd.write_as("root", "/etc/systemd/system/lrpathd.service.d/shorter.conf", shorter);
    systemd.run(&["systemctl", "daemon-reload"]);
    systemd.run(&["systemctl", "start", "lrpathd"]);
    systemd.write_as("writer", &format!("{STATE}/data/january.txt"), text.as_bytes());
    accepted(&systemd, 1);

    // A wanted stop in the middle of a job: it saves, and nothing is left.
    let step = busy(&systemd, 50);
    let asked = Instant::now();
    systemd.run(&["systemctl", "stop", "lrpathd"]);
    assert!(asked.elapsed() < Duration::from_secs(60), "{:?}", asked.elapsed());
    assert_eq!((systemd.property("Result").as_str(), trainers(&systemd).as_str()), ("success", ""));
    let saved = systemd.run(&["ls", &format!("{STATE}/checkpoints")]);
    assert!(!saved.trim().is_empty(), "a checkpoint of the steps so far");
    systemd.run(&["systemctl", "start", "lrpathd"]);
    assert!(busy(&systemd, 0) >= step, "it goes on where it was");
    ask(&systemd, &["cut", "january"]);

    // Killed: the trainer goes on, and the next daemon finds it.
    busy(&systemd, step);
    let trainer = trainers(&systemd);
    systemd.run(&["systemctl", "kill", "--signal", "KILL", "--kill-whom", "main", "lrpathd"]);
    systemd.wait("a restart", 30, || {
        systemd.property("NRestarts") == "1" && systemd.property("SubState") == "running"
    });
    assert!(!trainer.is_empty());
    assert_eq!(trainers(&systemd), trainer, "the same process");
    assert!(busy(&systemd, 0) > step);

    // Hung: its sign of life stays out, and it is started again.
    systemd.run(&["systemctl", "kill", "--signal", "STOP", "--kill-whom", "main", "lrpathd"]);
    systemd.wait("the watchdog", 40, || {
        systemd.property("NRestarts") == "2" && systemd.property("SubState") == "running"
    });
    assert!(systemd.run(&["journalctl", "--unit", "lrpathd", "--no-pager"]).contains("Watchdog timeout"));

    systemd.wait("the version", 300, || released(&systemd) == 1);
    assert_eq!(weights(&systemd, 1), wanted);

    systemd.run(&["systemctl", "stop", "lrpathd"]);
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    systemd.run(&["make", "-s", "-C", repository, "uninstall", "PREFIX=/usr"]);
    assert!(!systemd.tried(&["test", "-e", "/usr/bin/lrpathd"]).status.success());
    systemd.run(&["test", "-e", &format!("{STATE}/releases/v1/model.safetensors")]);
}
