//! scheduler
pub mod cut;
pub mod decide;
