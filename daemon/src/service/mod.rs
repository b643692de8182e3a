//! The daemon's life: what is opened in which order, what runs, and how it ends.
//!
//! The state is locked first and let go last. Between the two the actors run until a signal comes or one of them cannot
//! go on; then all are told to stop, trainers are asked to save, and the journal says that it ended in order.

mod error;
mod manager;
mod neighbours;
mod settings;
pub mod sweep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use artifacts::release::SPLIT_ABOVE;
use artifacts::storage::{Disk, Hindrance};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::alias::links::Links;
use crate::api::{self, Backend, Face, Loopback, Page, Socket, Token};
use crate::config::{self, Config, Machine, Settings, TcpSettings};
use crate::edge::lrpathd::PROBE;
use crate::hooks::Hooks;
use crate::inbox::Inbox;
use crate::jobs::{self, Jobs, Local};
use crate::ledger::lock::StateLock;
use crate::ledger::probe::Probe;
use crate::ledger::transition::{Fixed, Transition};
use crate::ledger::{self, Clock, Ledger, LedgerError, Options, SystemClock};
use crate::outlook::Outlook;
use crate::publish::{Publisher, Publishing};
use crate::retention::Retention;
use crate::scheduler::Scheduler;
use crate::telemetry::Telemetry;
use crate::tensorboard::TensorBoard;
pub use error::ServiceError;
use manager::Manager;
use neighbours::Neighbours;

/// Runs the daemon on a state until a signal ends it.
///
/// # Errors
/// What keeps it from starting, or stopped it.
pub fn run(state: &Path) -> Result<(), ServiceError> {
    let system = |what| move |cause| ServiceError::System { what, cause };
    let state = ledger::find(state)?;
    let lock = Arc::new(StateLock::take(&state)?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let program = std::env::current_exe().map_err(system("the daemon's own program cannot be found"))?;
    let probe =
        Probe::by_this_program(&[PROBE], lock.clone()).map_err(system("the view cannot be probed"))?;
    let telemetry = Arc::new(Telemetry::default());
    let options = Options { probe, observer: Some(telemetry.clone()), ..Options::default() };
    let ledger = Ledger::open_with(&state, Arc::new(Disk), clock.clone(), &options)?;
    let ended = Daemon::new(state, program, clock, &ledger, telemetry).and_then(Daemon::run);
    ledger.close();
    drop(lock);
    ended
}

/// Between two tries of a start that the disk has no room for.
const HINDERED: Duration = Duration::from_secs(1);

type Actors = JoinSet<Result<(), ServiceError>>;

struct Daemon {
    state: PathBuf,
    weights: Option<PathBuf>,
    settings: Settings,
    fixed: Fixed,
    program: PathBuf,
    clock: Arc<dyn Clock>,
    ledger: Ledger,
    telemetry: Arc<Telemetry>,
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
        let file = state.join(config::FILE);
        let (config, given) = Config::load_of_state(&file, &fixed)?;
        config::is_unchanged(&fixed, &config.fixed(&given), &file)?;
        let settings = config.settings(&state, &Machine::this())?;
        let weights = config.weights_folder(&file);
        Ok(Self { state, weights, settings, fixed, program, clock, ledger: ledger.clone(), telemetry })
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
        let system = |what| move |cause| ServiceError::System { what, cause };
        let mut terminate =
            signal(SignalKind::terminate()).map_err(system("SIGTERM cannot be listened to"))?;
        let mut interrupt =
            signal(SignalKind::interrupt()).map_err(system("SIGINT cannot be listened to"))?;
        let version = env!("CARGO_PKG_VERSION");
        let started = Transition::DaemonStarted { program: format!("lrpathd {version}") };
        while let Err(error) = self.ledger.commit(started.clone()) {
            if error.hindrance() != Some(Hindrance::Full) {
                return Err(error.into());
            }
            // The ledger has said so. A start that fails would only be tried again by whoever looks after the daemon.
            tokio::select! {
                () = tokio::time::sleep(HINDERED) => {}
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
        }
        let (stop, shutdown) = watch::channel(false);
        let manager = Manager::of_environment();
        let (mut actors, backend) = self.start(&shutdown)?;
        manager.ready();
        let telling = tokio::spawn(manager.keep(backend, shutdown));
        tracing::info!(state = %self.state.display(), version, "lrpathd is ready");
        let first = tokio::select! {
            ended = actors.join_next() => ended,
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        };
        tracing::info!("stopping: trainers are asked to save");
        manager.stopping();
        let _ = stop.send(true);
        let mut result = first.map_or(Ok(()), outcome);
        while let Some(ended) = actors.join_next().await {
            let ended = outcome(ended);
            result = result.and(ended);
        }
        telling.abort();
        match self.ledger.commit(Transition::DaemonStopped) {
            // It has stopped in order all the same, and the next start finds nothing amiss.
            Err(error) if error.hindrance().is_some() => result,
            said => result.and(said.map(drop).map_err(ServiceError::from)),
        }
    }

    fn start(&self, shutdown: &watch::Receiver<bool>) -> Result<(Actors, Arc<Backend>), ServiceError> {
        let (ledger, clock) = (&self.ledger, &self.clock);
        let inbox = settings::inbox(&self.state, &self.program, &self.settings, &self.fixed);
        let (inbox, inbox_handle) = Inbox::new(inbox, ledger.clone(), clock.clone());
        let jobs = jobs::Settings::of(&self.settings, &self.state, self.weights.clone(), Arc::new(Disk));
        let local = Local::new(self.settings.trainer.command.clone(), std::env::vars_os(), Arc::new(Disk));
        let (jobs, jobs_handle) = Jobs::new(jobs, ledger.clone(), Arc::new(local), clock.clone());
        let neighbours = Neighbours { inbox: inbox_handle, jobs: jobs_handle };
        let wanted = settings::scheduler(&self.settings);
        let scheduler = Scheduler::new(ledger.clone(), clock.clone(), neighbours.clone(), wanted)?;
        let publishing =
            Publishing { state: self.state.clone(), storage: Arc::new(Disk), split_above: SPLIT_ABOVE };
        let links = Links::new(ledger.clone(), &self.state, Arc::new(Disk));
        let hooks = Hooks::new(self.settings.hooks.clone(), &self.state, shutdown.clone());
        let publisher = Publisher::new(ledger.clone(), publishing, links.clone(), hooks.clone());
        let retention = Retention {
            ledger: ledger.clone(),
            state: self.state.clone(),
            storage: Arc::new(Disk),
            rules: settings::retention(&self.settings),
            turn: Arc::default(),
        };
        let backend = Arc::new(Backend {
            retention: retention.clone(),
            links,
            telemetry: self.telemetry.clone(),
            ledger: ledger.clone(),
            live: Arc::new(neighbours),
            clock: clock.clone(),
            state: self.state.clone(),
            slots: self.settings.slots.clone(),
        });
        let socket = Socket::bind(&self.settings.socket)?;
        let port = self.settings.tcp.as_ref().map(open_port).transpose()?;

        let mut actors = JoinSet::new();
        let outlook = Outlook::new(ledger.clone(), &self.state);
        let down = shutdown.clone();
        actors.spawn(async move {
            outlook.run(down).await;
            Ok(())
        });
        let (told, down) = (ledger.clone(), shutdown.clone());
        actors.spawn(async move {
            hooks.tell(told, down.clone()).await?;
            // Whoever has nobody to tell is no part that has ended.
            let mut down = down;
            let _ = down.wait_for(|stops| *stops).await;
            Ok(())
        });
        if let Some(folder) = &self.settings.tensorboard {
            let tensorboard = TensorBoard::new(ledger.clone(), &self.state, folder.clone());
            let down = shutdown.clone();
            actors.spawn(async move {
                tensorboard.run(down).await;
                Ok(())
            });
        }
        let down = shutdown.clone();
        actors.spawn(async move { Ok(inbox.run(down).await?) });
        let down = shutdown.clone();
        actors.spawn(async move { Ok(jobs.run(down).await?) });
        let down = shutdown.clone();
        actors.spawn(async move { Ok(scheduler.run(down).await?) });
        let down = shutdown.clone();
        actors.spawn(async move { Ok(publisher.run(down).await?) });
        if self.settings.collect {
            let down = shutdown.clone();
            actors.spawn(async move { Ok(retention.run(down).await?) });
        }
        let down = shutdown.clone();
        let served = backend.clone();
        actors.spawn(async move {
            api::serve(socket, served, down).await;
            Ok(())
        });
        if let Some((port, face)) = port {
            let (served, down) = (backend.clone(), shutdown.clone());
            actors.spawn(async move {
                api::serve_tcp(port, face, served, down).await;
                Ok(())
            });
        }
        Ok((actors, backend))
    }
}

/// Opens the door over TCP. A page that is not there keeps nobody from anything.
fn open_port(settings: &TcpSettings) -> Result<(Loopback, Face), ServiceError> {
    let token = settings.token_file.as_deref().map(Token::read).transpose()?;
    let page = Page::read(&settings.page).unwrap_or_else(|error| {
        tracing::warn!(%error, "the live page is not served: `make web` builds it, `control.page` names its folder");
        Page::default()
    });
    Ok((Loopback::bind(settings.address)?, Face { token, page }))
}

fn outcome(ended: Result<Result<(), ServiceError>, tokio::task::JoinError>) -> Result<(), ServiceError> {
    ended.unwrap_or_else(|error| Err(ServiceError::Task(error.to_string())))
}
