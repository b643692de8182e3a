//! What the service manager is told: that the daemon is ready, what it does, and that it lives.
//!
//! systemd goes on with what needs the daemon once that says it is ready, shows its words in `systemctl status`, and ends it
//! when it is silent for too long. So the sign of life comes from somebody who asks the version tree a question: a daemon
//! that cannot answer one is as good as dead. Where there is no service manager, nobody hears any of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::api::Backend;

/// Between two looks at what the daemon does.
const LOOK: Duration = Duration::from_secs(2);

/// The service manager that started the daemon, or none.
#[derive(Debug, Clone, Copy)]
pub struct Manager {
    /// After so long without a sign of life it ends the daemon.
    watchdog: Option<Duration>,
}

impl Manager {
    /// What the environment says of it.
    pub fn of_environment() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled() }
    }

    /// The daemon answers.
    pub fn ready(self) {
        say(&[NotifyState::Ready]);
    }

    /// The daemon takes another configuration, and is ready again in a moment.
    pub fn reloading(self) {
        let now = NotifyState::monotonic_usec_now().ok();
        let states: Vec<NotifyState<'_>> = std::iter::once(NotifyState::Reloading).chain(now).collect();
        say(&states);
    }

    /// The daemon ends in order, which may take until its trainers have saved.
    pub fn stopping(self) {
        say(&[NotifyState::Stopping]);
    }

    /// Tells what the daemon does, and that it lives, for as long as it is asked to.
    pub async fn keep(self, backend: Arc<Backend>, mut shutdown: watch::Receiver<bool>) {
        let every = self.watchdog.map_or(LOOK, |limit| LOOK.min(limit / 3));
        let mut told = String::new();
        loop {
            let asked = backend.clone();
            let answer = tokio::task::spawn_blocking(move || line(&asked));
            match timeout(every, answer).await {
                Ok(Ok(line)) => {
                    let line = if *shutdown.borrow() { format!("stopping; {line}") } else { line };
                    if line != told {
                        say(&[NotifyState::Status(&line)]);
                        told = line;
                    }
                    if self.watchdog.is_some() {
                        say(&[NotifyState::Watchdog]);
                    }
                }
                // Whoever waits for a sign of life gets none.
                Ok(Err(_)) | Err(_) => tracing::warn!("the version tree does not answer"),
            }
            let stops = *shutdown.borrow_and_update();
            match stops {
                false => _ = timeout(every, shutdown.changed()).await,
                true => tokio::time::sleep(every).await,
            }
        }
    }
}

/// What the daemon does, with the time that is left.
fn line(backend: &Backend) -> String {
    let (doing, until) = backend.doing();
    let left = until.and_then(|until| until.checked_sub(backend.clock.now())).filter(|left| *left >= 1000);
    match left.and_then(|left| i64::try_from(left / 1000).ok()) {
        Some(seconds) => format!("{doing}, {:#} left", SignedDuration::from_secs(seconds)),
        None => doing,
    }
}

fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
