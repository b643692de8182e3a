//! paradigm
