//! The daemon's life: what is opened in which order, what runs, and how it ends.
//!
//! The state is locked first and let go last. Between the two the actors run until a signal comes or one of them cannot
//! go on; then all are told to stop, trainers are asked to save, and the journal says that it ended in order.

mod error;
mod manager;
mod neighbours;
mod reload;
mod settings;
mod shift;
pub mod sweep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use artifacts::storage::{Disk, Hindrance};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::Socket;
use crate::config;
use crate::devices::{Devices, Nvml, Pace};
use crate::edge::lrpathd::PROBE;
use crate::jobs::Local;
use crate::ledger::lock::StateLock;
use crate::ledger::probe::Probe;
use crate::ledger::transition::{Fixed, Transition};
use crate::ledger::{self, Clock, Ledger, LedgerError, Options, SystemClock};
use crate::telemetry::Telemetry;
pub use error::ServiceError;
use manager::Manager;
use reload::{Reloading, Settled};
use shift::Shift;

/// Runs the daemon on a state until a signal ends it.
///
/// # Errors
/// What keeps it from starting, or stopped it.
pub fn run(state: &Path) -> Result<(), ServiceError> {
    let system = |what| move |cause| ServiceError::System { what, cause };
    let not_ours = |error: ServiceError| error.of_a_state_that_is_not_ours(state);
    let state = ledger::find(state).map_err(ServiceError::from).map_err(not_ours)?;
    let lock = Arc::new(StateLock::take(&state).map_err(ServiceError::from).map_err(not_ours)?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let program = std::env::current_exe().map_err(system("the daemon's own program cannot be found"))?;
    let probe =
        Probe::by_this_program(&[PROBE], lock.clone()).map_err(system("the view cannot be probed"))?;
    let telemetry = Arc::new(Telemetry::default());
    let options = Options { probe, observer: Some(telemetry.clone()), ..Options::default() };
    let ledger = Ledger::open_with(&state, Arc::new(Disk), clock.clone(), &options);
    let ledger = ledger.map_err(ServiceError::from).map_err(not_ours)?;
    let ended = Daemon::new(state, program, clock, &ledger, telemetry).and_then(Daemon::run);
    ledger.close();
    drop(lock);
    ended
}

/// Between two tries of a start that the disk has no room for.
const HINDERED: Duration = Duration::from_secs(1);

struct Daemon {
    program: PathBuf,
    clock: Arc<dyn Clock>,
    ledger: Ledger,
    telemetry: Arc<Telemetry>,
    devices: Arc<Devices>,
    state: PathBuf,
    fixed: Fixed,
    reloading: Arc<Reloading>,
}

/// Why a shift ends.
enum End {
    /// Somebody wants the daemon to end.
    Asked,
    /// A part cannot go on, or has ended by itself.
    Part(Result<(), ServiceError>),
    /// The configuration was read again.
    Reload,
}

impl Daemon {
    /// A daemon for an open ledger. The state's own format is looked at before the configuration: what a newer version
    /// writes into either is not to be taken for a mistake in the other.
    fn new(
        state: PathBuf,
        program: PathBuf,
        clock: Arc<dyn Clock>,
        ledger: &Ledger,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, ServiceError> {
        let fixed = ledger.read(|tree| tree.fixed().cloned());
        let fixed = fixed.ok_or_else(|| LedgerError::NoState(state.clone()))?;
        config::format_is_known(&state, &fixed)?;
        let settled = Settled::read(&state, &fixed)?;
        let reloading = Arc::new(Reloading::new(state.clone(), fixed.clone(), settled));
        let devices = Arc::new(Devices::of(Nvml::default(), Pace::default()));
        Ok(Self { program, clock, ledger: ledger.clone(), telemetry, devices, state, fixed, reloading })
    }

    fn run(self) -> Result<(), ServiceError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|cause| ServiceError::System { what: "the runtime cannot be started", cause })?;
        let ended = runtime.block_on(self.live());
        // Only threads that wait for something outside are left.
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    }

    async fn live(&self) -> Result<(), ServiceError> {
        let mut signals = Signals::listen()?;
        let version = env!("CARGO_PKG_VERSION");
        let started = Transition::DaemonStarted { program: format!("lrpathd {version}") };
        while let Err(error) = self.ledger.commit(started.clone()) {
            if error.hindrance() != Some(Hindrance::Full) {
                return Err(ServiceError::from(error).of_a_state_that_is_not_ours(&self.state));
            }
            // The ledger has said so. A start that fails would only be tried again by whoever looks after the daemon.
            tokio::select! {
                () = tokio::time::sleep(HINDERED) => {}
                () = signals.end() => return Ok(()),
            }
        }
        let manager = Manager::of_environment();
        let mut settled = self.reloading.current();
        let local = Local::new(
            settled.settings.trainer.command.clone(),
            std::env::vars_os(),
            Arc::new(Disk),
            self.devices.clone(),
        );
        // Whoever asks while parts end and begin waits for the answer.
        let socket = Arc::new(Socket::bind(&settled.settings.socket)?);
        let mut before: Option<Settled> = None;
        let result = loop {
            let mut shift = match Shift::begin(self, &settled, &local, socket.clone()) {
                Ok(shift) => shift,
                Err(error) => match before.take() {
                    Some(last) => {
                        tracing::error!(%error, "what was reloaded cannot be used: it goes on as it was");
                        self.reloading.back_to(last.clone());
                        settled = last;
                        continue;
                    }
                    None => return Err(error),
                },
            };
            manager.ready();
            let telling = tokio::spawn(manager.keep(shift.backend.clone(), shift.shutdown()));
            tracing::info!(state = %self.state.display(), version, "lrpathd is ready");
            let end = shift.until(&mut signals, &self.reloading).await;
            let asked = match end {
                End::Reload => {
                    manager.reloading();
                    let ended = shift.end(true).await;
                    telling.abort();
                    match ended {
                        Ok(()) => before = Some(std::mem::replace(&mut settled, self.reloading.current())),
                        failed => break failed,
                    }
                    continue;
                }
                End::Asked => Ok(()),
                End::Part(ended) => ended,
            };
            tracing::info!("stopping: trainers are asked to save");
            manager.stopping();
            // Nobody waits for an answer that will not come.
            drop(socket);
            let ended = shift.end(false).await;
            telling.abort();
            break asked.and(ended);
        };
        match self.ledger.commit(Transition::DaemonStopped) {
            // It has stopped in order all the same, and the next start finds nothing amiss.
            Err(error) if error.hindrance().is_some() => result,
            said => result.and(said.map(drop).map_err(ServiceError::from)),
        }
    }
}

/// What the system tells a daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> Result<Self, ServiceError> {
        let listen = |kind, what| signal(kind).map_err(|cause| ServiceError::System { what, cause });
        Ok(Self {
            terminate: listen(SignalKind::terminate(), "SIGTERM cannot be listened to")?,
            interrupt: listen(SignalKind::interrupt(), "SIGINT cannot be listened to")?,
            hang_up: listen(SignalKind::hangup(), "SIGHUP cannot be listened to")?,
        })
    }

    /// Somebody wants it to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
