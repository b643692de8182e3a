//! What a configuration may say of the world around a run: where it is asked, and who is told of it.

use super::Config;
use super::objection::Objection;

/// Longest path of a unix socket, in bytes, without the zero at its end.
pub(super) const LONGEST_SOCKET: usize = 107;

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
    if control.token_file.is_some() && control.listen.is_none() {
        let what = "opens a door that is not there: control.listen is not set";
        found.push(Objection::new("control.token_file", what, "set control.listen too, or remove it"));
    }
}
