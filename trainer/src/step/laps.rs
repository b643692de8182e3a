//! What a step's time goes to.
//!
//! Whoever wants to know hands in a clock; without one a lap costs nothing. A lap is the time since the last one, so no
//! time is lost between two operations, and an operation is one line longer for it.

use std::cell::Cell;

use serde::Serialize;

/// Seconds since any fixed moment.
pub type Clock = fn() -> f64;

/// A kind of work of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Rows of the embedding, and their gradients.
    Embedding,
    /// The norms.
    Norm,
    /// The matrix products of the layers.
    Linear,
    /// The rotary embedding.
    Rope,
    /// Attention between its projections.
    Attention,
    /// `silu(gate) * up`.
    SwiGlu,
    /// The output head together with the loss.
    Head,
}

impl Operation {
    /// All of them, in the order of a step.
    pub const ALL: [Self; 7] =
        [Self::Embedding, Self::Norm, Self::Linear, Self::Rope, Self::Attention, Self::SwiGlu, Self::Head];
}

/// Which half of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pass {
    /// From the tokens to the loss. The head's, which gives both at once, counts as backward.
    Forward,
    /// From the loss to the gradients, with what is computed again.
    Backward,
}

impl Pass {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Forward, Self::Backward];
}

/// The seconds of each operation in each pass.
#[derive(Debug, Default)]
pub struct Laps {
    clock: Option<Clock>,
    pass: Cell<usize>,
    last: Cell<f64>,
    seconds: [[Cell<f64>; Operation::ALL.len()]; Pass::ALL.len()],
}

impl Laps {
    /// Laps on a clock, from zero.
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock: Some(clock), ..Self::default() }
    }

    /// A pass begins.
    pub(super) fn begin(&self, pass: Pass) {
        self.pass.set(pass as usize);
        self.last.set(self.clock.map_or(0.0, |clock| clock()));
    }

    /// The time since the last lap was this operation's.
    pub(super) fn lap(&self, operation: Operation) {
        if let Some(clock) = self.clock {
            let now = clock();
            let seconds = &self.seconds[self.pass.get()][operation as usize];
            seconds.set(seconds.get() + now - self.last.get());
            self.last.set(now);
        }
    }

    /// Whether somebody wants to know.
    pub(super) fn are_taken(&self) -> bool {
        self.clock.is_some()
    }

    /// What an operation took in a pass since the clock was handed in.
    pub fn seconds(&self, operation: Operation, pass: Pass) -> f64 {
        self.seconds[pass as usize][operation as usize].get()
    }
}
