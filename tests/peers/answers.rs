//! What the peers' scripts answer.

use serde::Deserialize;

/// What `train.py` says of a run.
#[derive(Deserialize)]
pub struct Run {
    pub steps: Vec<Step>,
    pub held_out: Vec<HeldOut>,
}

/// A step of a run.
#[derive(Deserialize)]
pub struct Step {
    pub loss: f64,
    pub grad_norm: f64,
}

/// The held-out loss of an increment.
#[derive(Deserialize)]
pub struct HeldOut {
    pub increment: u32,
    pub loss: f64,
    pub tokens: u64,
}
