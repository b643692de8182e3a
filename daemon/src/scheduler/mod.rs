//! scheduler
pub mod cut;
pub mod decide;
#[cfg(test)]
mod simulation;
