//! Where a state and its daemon's socket are.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::flags::Place;
use crate::config::{FILE, SOCKET};

/// Where a state is if nothing else is said and this folder holds none.
const SYSTEM: &str = "/var/lib/lrpath";
/// Bytes of a configuration that are looked at for the socket.
const LONGEST: u64 = 1 << 20;

impl Place {
    /// The state folder.
    pub fn state(&self) -> PathBuf {
        let here = || PathBuf::from(".");
        match &self.state {
            Some(state) => state.clone(),
            None if Path::new(FILE).is_file() => here(),
            None => PathBuf::from(SYSTEM),
        }
    }

    /// The state's configuration.
    pub fn config(&self) -> PathBuf {
        self.state().join(FILE)
    }

    /// The control socket. A configuration that has errors still says where it is.
    pub fn socket(&self) -> PathBuf {
        if let Some(socket) = &self.socket {
            return socket.clone();
        }
        let state = self.state();
        let mut text = String::new();
        let file = std::fs::File::open(state.join(FILE));
        let read = file.and_then(|file| file.take(LONGEST).read_to_string(&mut text));
        let table = read.ok().and_then(|_| text.parse::<toml::Table>().ok());
        let named = table.as_ref().and_then(|table| table.get("control")?.get("socket")?.as_str());
        state.join(named.unwrap_or(SOCKET))
    }
}
