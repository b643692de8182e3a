//! The model: what kind it is, its weights, and what it computes.

mod decoder;
mod family;
mod weights;

pub use decoder::{Cache, Decoder};
pub use family::{Config, ConfigError};
pub(crate) use weights::read_tensors;
pub use weights::{Weights, WeightsError};

#[cfg(test)]
mod tests;
