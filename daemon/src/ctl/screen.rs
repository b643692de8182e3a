//! Where a command prints.

use std::io::Write;

use serde::Serialize;

use super::flags::Output;
use crate::edge::failure::Failure;
use crate::edge::look::Look;

/// Where a command prints, and for whom.
pub struct Screen<'a> {
    /// What is printed on.
    pub out: &'a mut dyn Write,
    /// For whom.
    pub look: Look,
}

impl Screen<'_> {
    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.map_err(|error| Failure::new("the answer cannot be printed").because(error))
    }

    /// What people read: too long a line is broken between words.
    pub(super) fn sentences(&mut self, text: &str) -> Result<(), Failure> {
        self.text(&self.look.wrapped(text))
    }

    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = if self.look.terminal {
            serde_json::to_string_pretty(value)
        } else {
            serde_json::to_string(value)
        };
        self.text(&(text.map_err(Failure::new)? + "\n"))
    }

    pub(super) fn answer<T: Serialize>(
        &mut self,
        output: Output,
        value: &T,
        draw: impl FnOnce(&T, &Look) -> String,
    ) -> Result<(), Failure> {
        if output.json {
            return self.json(value);
        }
        let text = draw(value, &self.look);
        self.sentences(&text)
    }
}
