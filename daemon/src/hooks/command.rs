//! Runs somebody's command: with a text on its standard input, in a group of its own, and never for longer than allowed.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Between two looks at a command that runs.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of its standard error that are read; the rest it is told to keep.
const MOST_HEARD: u64 = 64 << 10;
/// Characters of its last line that are told.
const MOST_TOLD: usize = 300;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It exited with 0.
    Well,
    /// It did not, with how and with the last line of its standard error.
    Badly(String),
    /// The daemon stops: it was ended, and has said nothing.
    Stopped,
}

/// Runs a command in a folder.
pub fn run(
    words: &[OsString],
    folder: &Path,
    input: Vec<u8>,
    limit: Duration,
    stops: &dyn Fn() -> bool,
) -> Ended {
    let Some((program, arguments)) = words.split_first() else { return Ended::Well };
    let started = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => return Ended::Badly(format!("could not be started: {error}")),
    };
    let stdin = child.stdin.take();
    // A command that reads nothing must not hold up anybody.
    let tell = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
    let stderr = child.stderr.take();
    let hear = thread::spawn(move || {
        let mut heard = Vec::new();
        // What it says behind that goes nowhere.
        let _ = stderr.map(|stderr| stderr.take(MOST_HEARD).read_to_end(&mut heard));
        heard
    });
    let ended = wait(&mut child, limit, stops);
    // Whatever it has started ends with it, and lets go of the pipes.
    kill_group(&child);
    let _ = child.wait();
    let _ = tell.join();
    let heard = hear.join().unwrap_or_default();
    match ended {
        Waited::Ended(status) if status.success() => Ended::Well,
        Waited::Ended(status) => Ended::Badly(with_last_line(format!("ended with {}", how(status)), &heard)),
        Waited::TooLong => {
            let seconds = limit.as_secs_f64();
            Ended::Badly(with_last_line(format!("gave no answer within {seconds} s and was ended"), &heard))
        }
        Waited::Stopped => Ended::Stopped,
        Waited::Lost(error) => Ended::Badly(format!("was lost: {error}")),
    }
}

enum Waited {
    Ended(ExitStatus),
    TooLong,
    Stopped,
    Lost(std::io::Error),
}

fn wait(child: &mut Child, limit: Duration, stops: &dyn Fn() -> bool) -> Waited {
    let since = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Waited::Ended(status),
            Ok(None) if since.elapsed() >= limit => return Waited::TooLong,
            Ok(None) if stops() => return Waited::Stopped,
            Ok(None) => thread::sleep(LOOK),
            Err(error) => return Waited::Lost(error),
        }
    }
}

fn kill_group(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // A group that is gone already is what is wanted.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn with_last_line(how: String, heard: &[u8]) -> String {
    let heard = String::from_utf8_lossy(heard);
    let last = heard.lines().rev().map(str::trim).find(|line| !line.is_empty());
    match last {
        Some(line) => format!("{how}: {}", line.chars().take(MOST_TOLD).collect::<String>()),
        None => how,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: f64, stops: bool) -> Ended {
        let words = ["sh", "-c", script].map(OsString::from);
        let limit = Duration::from_secs_f64(limit);
        run(&words, Path::new("/"), b"{\"event\":\"x\"}\n".to_vec(), limit, &|| stops)
    }

    #[test]
    fn what_it_is_told_arrives_and_how_it_ends_is_told_with_its_last_line() {
        assert_eq!(shell("grep -q '\"event\":\"x\"'", 10.0, false), Ended::Well);
        let bad = |text: &str| Ended::Badly(text.to_owned());
        assert_eq!(shell("exit 3", 10.0, false), bad("ended with exit code 3"));
        assert_eq!(
            shell("echo one >&2; echo ' too high ' >&2; echo >&2; exit 1", 10.0, false),
            bad("ended with exit code 1: too high")
        );
        assert_eq!(shell("kill -9 $$", 10.0, false), bad("ended with signal 9"));
        let missing =
            run(&["/no/such/program".into()], Path::new("/"), Vec::new(), Duration::from_secs(1), &|| false);
        assert!(
            matches!(missing, Ended::Badly(why) if why.starts_with("could not be started: No such file"))
        );
    }

    #[test]
    fn one_that_does_not_end_is_ended_with_all_that_it_started() {
        let since = Instant::now();
        let ended = shell("sleep 1000 & echo waiting >&2; sleep 1000", 0.3, false);
        assert_eq!(ended, Ended::Badly("gave no answer within 0.3 s and was ended: waiting".to_owned()));
        assert_eq!(shell("sleep 1000", 1000.0, true), Ended::Stopped);
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    }

    #[test]
    fn one_that_reads_nothing_and_says_much_holds_up_nobody() {
        let words = ["sh", "-c", "yes | head -c 10000000 >&2; exit 2"].map(OsString::from);
        let input = vec![b'x'; 10 << 20];
        let ended = run(&words, Path::new("/"), input, Duration::from_secs(20), &|| false);
        assert!(matches!(ended, Ended::Badly(_)), "{ended:?}");
    }
}
