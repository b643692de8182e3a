//! The service as Debian runs it: installed, in a real systemd, under all of its restrictions.
//!
//! It needs root, and a systemd on the machine; `make service-test` sees to both.
#![expect(clippy::unwrap_used, reason = "tests")]

mod service;
mod systemd;
