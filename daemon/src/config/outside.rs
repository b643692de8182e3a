//! What a configuration may say of the world around a run: where it is asked, and who is told of it.

use std::path::Path;

use super::Config;
use super::objection::Objection;

/// Longest path of a unix socket, in bytes, without the zero at its end.
const LONGEST_SOCKET: usize = 107;

/// Longest time that a hook may be given, in seconds: publishing waits for it.
const LONGEST_HOOK: f64 = 3600.0;

/// All that is wrong with it, as far as the file alone shows.
pub(super) fn check(config: &Config, found: &mut Vec<Objection>) {
    let control = &config.control;
    if control.socket.as_ref().is_some_and(|socket| socket.as_os_str().len() > LONGEST_SOCKET) {
        let help = format!("choose a path of at most {LONGEST_SOCKET} bytes");
        found.push(Objection::new("control.socket", "is too long for a unix socket", help));
    }
    if control.listen.is_some_and(|address| !address.ip().is_loopback()) {
        let what = "is not on the loopback interface, and nothing of the daemon is for a network";
        let help =
            "give 127.0.0.1 and a port; from elsewhere, `ssh -L 7720:127.0.0.1:7720 <machine>` leads to it";
        found.push(Objection::new("control.listen", what, help));
    }
    let hooks = &config.hooks;
    let commands = [
        ("hooks.pre_publish", &hooks.pre_publish),
        ("hooks.on_release", &hooks.on_release),
        ("hooks.on_failure", &hooks.on_failure),
    ];
    for (key, words) in commands {
        let program = words.as_ref().map(|words| words.first().map_or("", String::as_str));
        match program {
            Some("") => {
                let help = "give the program and its arguments as a list, or remove the key";
                found.push(Objection::new(key, "names no program", help));
            }
            Some(program) if Path::new(program).is_relative() => {
                let help = "give its path from the root: a service has no folder and few paths of its own";
                found.push(Objection::new(key, format!("names `{program}`, which may be anywhere"), help));
            }
            _ => {}
        }
    }
    if !(hooks.seconds > 0.0 && hooks.seconds <= LONGEST_HOOK) {
        let what = "is no time for a hook";
        found.push(Objection::new("hooks.seconds", what, "give seconds, more than 0 and at most 3600"));
    }
    if control.token_file.is_some() && control.listen.is_none() {
        let what = "opens a door that is not there: control.listen is not set";
        found.push(Objection::new("control.token_file", what, "set control.listen too, or remove it"));
    }
}
