//! What keeps the daemon from starting: a sentence that says what, where and what to do, a number for scripts, and
//! nothing lost.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::daemon::{Daemon, wait_for};
use harness::program;
use harness::state::{State, byte_config};
use harness::text::sentences;

const CONFIGURATION: i32 = 5;
const IN_USE: i32 = 6;
const NOT_OURS: i32 = 4;

const TABLES: &str =
    "[schedule]\nwarmup_steps = 4\npeak = 1e-3\nmin = 1e-4\nalpha = 0.6\n[cut]\nevery_tokens = 640";

/// A state with a shard.
fn state() -> State {
    let state = State::new(&byte_config("main_path = \"lazy\"", TABLES));
    let daemon = Daemon::start(&state);
    state.drop_file("text.txt", sentences(1, 300).as_bytes());
    wait_for(&state, "acceptance", 30, |s| s["shards"]["accepted"].as_u64() == Some(1));
    daemon.stop();
    state
}

/// Starts `lrpathd`, which is to be refused with this number; what it says.
fn refused(state: &Path, code: i32) -> String {
    let mut process = Command::new(program("lrpathd"))
        .arg("--state")
        .arg(state)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while process.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            process.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let ended = process.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(code), "{told}");
    let error = told.find("error: ").expect(&told);
    told[error..].to_owned()
}

fn assert_told(told: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(told.contains(part), "`{part}` is missing in:\n{told}"));
}

/// The daemon starts, and has what it had.
fn assert_nothing_lost(state: &State) {
    let daemon = Daemon::start(state);
    assert_eq!(state.ask(&["status"])["shards"]["accepted"].as_u64(), Some(1));
    daemon.stop();
}

#[test]
fn a_configuration_that_cannot_be_is_refused_with_its_place() {
    let state = state();
    let file = state.path().join("lrpathd.toml");
    let sound = std::fs::read_to_string(&file).unwrap();
    let place = |line: &str| {
        let at = sound.lines().position(|other| other == line).expect(line);
        format!("{}:{}:", file.display(), at + 1)
    };
    // The line, what it becomes, and what is said of it.
    let table = [
        (
            "alpha = 0.6",
            "alpa = 0.6",
            vec!["`schedule.alpa` is no key of this file", "`schedule.alpha` was probably meant"],
        ),
        ("alpha = 0.6", "alpha = 0.0", vec!["`schedule.alpha = 0.0`", "give a number above 0 and at most 1"]),
        ("alpha = 0.6", "alpha = 1.5", vec!["`schedule.alpha = 1.5`", "give a number above 0 and at most 1"]),
        ("alpha = 0.6", "alpha = \"much\"", vec!["`schedule.alpha = \"much\"`", "a number was expected"]),
        ("every_tokens = 640", "every_tokens = 160", vec!["`cut.every_tokens = 160`", "288"]),
        ("alpha = 0.6", "alpha = ", vec!["this is no TOML"]),
    ];
    for (line, becomes, parts) in table {
        std::fs::write(&file, sound.replace(line, becomes)).unwrap();
        let told = refused(&state.path(), CONFIGURATION);
        assert_told(&told, &[&[place(line).as_str(), "hint: "][..], &parts].concat());
        let checked = state.ctl(&["config", "check"]);
        assert_eq!(checked.status.code(), Some(CONFIGURATION), "{becomes}");
        assert_told(&String::from_utf8_lossy(&checked.stderr), &parts);
    }
    std::fs::write(&file, sound.replace("peak = 1e-3", "peak = 2e-3")).unwrap();
    let fixed = "`schedule.peak` is fixed for the life of a state: this one was made with 0.001, and the configuration \
                 says 0.002";
    let told = refused(&state.path(), CONFIGURATION);
    assert_told(&told, &[&file.display().to_string(), fixed, "hint: change it back, or make a new state"]);

    std::fs::write(&file, &sound).unwrap();
    assert_nothing_lost(&state);
}

#[test]
fn a_warm_up_that_no_first_increment_holds_is_refused_before_there_is_a_state() {
    let folder = tempfile::tempdir().unwrap();
    let given = folder.path().join("lrpathd.toml");
    std::fs::write(folder.path().join("model.json"), harness::state::MODEL).unwrap();
    let config = harness::state::config("", "[schedule]\nwarmup_steps = 200\n[cut]\nevery_tokens = 6400");
    std::fs::write(&given, config).unwrap();
    let state = folder.path().join("state");
    let made = Command::new(program("lrpathctl"))
        .args(["init", "--config"])
        .arg(&given)
        .arg("--state")
        .arg(&state)
        .output()
        .unwrap();
    assert_eq!(made.status.code(), Some(CONFIGURATION));
    let told = String::from_utf8_lossy(&made.stderr);
    assert_told(&told, &["`cut.every_tokens = 6400`", "200"]);
    assert!(!state.exists(), "nothing was written");
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let state = state();
    let daemon = Daemon::start(&state);
    let told = refused(&state.path(), IN_USE);
    let holder = format!("is in use by process {}", daemon.pid());
    assert_told(&told, &[&state.path().display().to_string(), &holder, "hint: ", "stop that one first"]);
    state.ask(&["status"]);
    daemon.stop();
    assert_nothing_lost(&state);
}

#[test]
fn a_socket_that_is_in_use_or_in_the_way_is_refused_and_stays() {
    let state = state();
    let socket = state.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let told = refused(&state.path(), IN_USE);
    assert_told(&told, &[&socket.display().to_string(), "another daemon answers on it", "`control.socket`"]);
    assert!(socket.exists());
    drop(listener);

    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "somebody's").unwrap();
    let told = refused(&state.path(), CONFIGURATION);
    assert_told(&told, &["is in the way of the control socket", "hint: remove it"]);
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "somebody's");

    std::fs::remove_file(&socket).unwrap();
    assert_nothing_lost(&state);
}

#[test]
fn a_folder_that_is_no_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let told = refused(folder.path(), CONFIGURATION);
    assert_told(&told, &["holds no state", "hint: ", "`lrpathctl init`"]);
    let told = refused(&folder.path().join("missing"), CONFIGURATION);
    assert_told(&told, &["missing` holds no state"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
}

/// The checksum of the journal's lines (CRC-32, as in zip).
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// A journal in which this line says that it has format 9.
fn from_the_future(journal: &str, line: usize) -> String {
    let of = |(number, text): (usize, &str)| {
        let json = &text[9..];
        let json =
            if number == line { json.replacen("\"format\":1", "\"format\":9", 1) } else { json.to_owned() };
        format!("{:08x} {json}\n", crc(json.as_bytes()))
    };
    journal.lines().enumerate().map(of).collect()
}

#[test]
fn a_state_of_a_newer_version_is_refused_whatever_its_configuration_says() {
    let state = state();
    let journal = std::fs::read_dir(state.path().join("journal")).unwrap().next().unwrap().unwrap().path();
    let sound = std::fs::read_to_string(&journal).unwrap();
    let file = state.path().join("lrpathd.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    // A newer version has keys that this one does not know: that is not what is wrong.
    let with_new_key = format!("from_the_future = true\n{config}");
    assert_eq!(from_the_future(&sound, usize::MAX), sound);
    for line in [0, 1] {
        let newer = from_the_future(&sound, line);
        assert_ne!(newer, sound);
        std::fs::write(&journal, &newer).unwrap();
        std::fs::write(&file, &with_new_key).unwrap();
        let told = refused(&state.path(), NOT_OURS);
        assert_told(&told, &["has format 9"]);
        assert!(!told.contains("from_the_future"), "{told}");
        for text in [&with_new_key, &config] {
            std::fs::write(&file, text).unwrap();
            let checked = state.ctl(&["config", "check"]);
            let told = String::from_utf8_lossy(&checked.stderr);
            assert_eq!(checked.status.code(), Some(NOT_OURS), "{told}");
            assert_told(&told, &["has format 9"]);
            assert!(!told.contains("from_the_future"), "{told}");
        }
        assert_eq!(std::fs::read_to_string(&journal).unwrap(), newer, "the journal is as it was");
    }
    std::fs::write(&journal, &sound).unwrap();
    std::fs::write(&file, &config).unwrap();
    assert_nothing_lost(&state);
}

#[test]
fn a_command_line_that_is_not_understood_has_a_number_of_its_own() {
    let ended = Command::new(program("lrpathd")).arg("--stat").output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    let help = Command::new(program("lrpathd")).arg("--help").output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("6  another program has the state or the socket"));
}
