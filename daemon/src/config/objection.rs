//! What a check says against a configuration, before it is known where in the file that stands.

/// What is wrong, and in which key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Objection {
    /// The key that is shown, then others that have to do with it.
    pub keys: Vec<String>,
    /// What is wrong, as it follows `key = value`.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl Objection {
    pub(super) fn new(key: &str, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { keys: vec![key.to_owned()], what: what.into(), help: help.into() }
    }

    pub(super) fn and(mut self, key: &str) -> Self {
        self.keys.push(key.to_owned());
        self
    }
}
