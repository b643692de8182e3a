//! The trainer's voice: one event a line, complete or not at all.

use std::io::{self, Write};

use artifacts::event::{Event, Line};

/// Says events on a stream, with the time of a clock that is passed in.
pub struct Events<W, C> {
    stream: W,
    clock: C,
}

impl<W: Write, C: Fn() -> f64> Events<W, C> {
    /// Events on `stream`; `clock` gives seconds since the Unix epoch.
    pub fn new(stream: W, clock: C) -> Self {
        Self { stream, clock }
    }

    /// Writes one line in one piece and flushes it.
    pub fn say(&mut self, event: Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Line { time: (self.clock)(), event })?;
        line.push(b'\n');
        self.stream.write_all(&line)?;
        self.stream.flush()
    }
}
