//! The only door to the disk's truth.
pub mod node;
pub mod path;
pub mod transition;
pub mod tree;
