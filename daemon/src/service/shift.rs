//! What runs between two readings of the configuration: the parts of the daemon, around the ledger that stays open.

use std::sync::Arc;

use artifacts::release::SPLIT_ABOVE;
use artifacts::storage::Disk;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::neighbours::Neighbours;
use super::reload::{Reloading, Settled};
use super::{Daemon, End, ServiceError, Signals, settings};
use crate::alias::links::Links;
use crate::api::{self, Backend, Face, Loopback, Page, Reload, Socket, Token};
use crate::config::TcpSettings;
use crate::hooks::Hooks;
use crate::inbox::Inbox;
use crate::jobs::{self, Jobs, Local};
use crate::outlook::Outlook;
use crate::publish::{Publisher, Publishing};
use crate::retention::Retention;
use crate::scheduler::Scheduler;
use crate::tensorboard::TensorBoard;

/// The parts, running.
pub struct Shift {
    parts: JoinSet<Result<(), ServiceError>>,
    /// What the API answers from.
    pub backend: Arc<Backend>,
    stop: watch::Sender<bool>,
    leave: watch::Sender<bool>,
}

impl Shift {
    /// Starts all parts, which answer on `socket`.
    ///
    /// # Errors
    /// What keeps one of them from starting; then none runs.
    pub fn begin(
        daemon: &Daemon,
        settled: &Settled,
        local: &Local,
        socket: Arc<Socket>,
    ) -> Result<Self, ServiceError> {
        let Daemon { ledger, clock, state, program, fixed, .. } = daemon;
        let Settled { settings, weights, .. } = settled;
        let (stop, shutdown) = watch::channel(false);
        let (leave, left) = watch::channel(false);
        let inbox = settings::inbox(state, program, settings, fixed);
        let (inbox, inbox_handle) = Inbox::new(inbox, ledger.clone(), clock.clone());
        let of_jobs = jobs::Settings::of(settings, state, weights.clone(), Arc::new(Disk));
        let local = local.with_command(settings.trainer.command.clone());
        let (jobs, jobs_handle) = Jobs::new(of_jobs, ledger.clone(), Arc::new(local), clock.clone());
        let devices = daemon.devices.clone();
        let slots = tokio::task::block_in_place(|| settings::slots(settings, &devices));
        if slots.is_empty() {
            return Err(ServiceError::NoGpus);
        }
        let neighbours = Neighbours { inbox: inbox_handle, jobs: jobs_handle, devices: devices.clone() };
        let wanted = settings::scheduler(settings, &slots);
        let scheduler = Scheduler::new(ledger.clone(), clock.clone(), neighbours.clone(), wanted)?;
        let publishing =
            Publishing { state: state.clone(), storage: Arc::new(Disk), split_above: SPLIT_ABOVE };
        let links = Links::new(ledger.clone(), state, Arc::new(Disk));
        let hooks = Hooks::new(settings.hooks.clone(), state, shutdown.clone());
        let publisher = Publisher::new(ledger.clone(), publishing, links.clone(), hooks.clone());
        let retention = Retention {
            ledger: ledger.clone(),
            state: state.clone(),
            storage: Arc::new(Disk),
            rules: settings::retention(settings),
            turn: Arc::default(),
        };
        let backend = Arc::new(Backend {
            retention: retention.clone(),
            links,
            shift: daemon.reloading.begun(),
            reload: daemon.reloading.clone() as Arc<dyn Reload>,
            telemetry: daemon.telemetry.clone(),
            ledger: ledger.clone(),
            live: Arc::new(neighbours),
            clock: clock.clone(),
            state: state.clone(),
            slots,
            devices,
        });
        let port = settings.tcp.as_ref().map(open_port).transpose()?;

        let mut parts = JoinSet::new();
        let outlook = Outlook::new(ledger.clone(), state);
        let down = shutdown.clone();
        parts.spawn(async move {
            outlook.run(down).await;
            Ok(())
        });
        let (told, down) = (ledger.clone(), shutdown.clone());
        parts.spawn(async move {
            hooks.tell(told, down.clone()).await?;
            // Whoever has nobody to tell is no part that has ended.
            let mut down = down;
            let _ = down.wait_for(|stops| *stops).await;
            Ok(())
        });
        if let Some(folder) = &settings.tensorboard {
            let tensorboard = TensorBoard::new(ledger.clone(), state, folder.clone());
            let down = shutdown.clone();
            parts.spawn(async move {
                tensorboard.run(down).await;
                Ok(())
            });
        }
        let down = shutdown.clone();
        parts.spawn(async move { Ok(inbox.run(down).await?) });
        let down = shutdown.clone();
        parts.spawn(async move { Ok(jobs.run(down, left).await?) });
        let down = shutdown.clone();
        parts.spawn(async move { Ok(scheduler.run(down).await?) });
        let down = shutdown.clone();
        parts.spawn(async move { Ok(publisher.run(down).await?) });
        if settings.collect {
            let down = shutdown.clone();
            parts.spawn(async move { Ok(retention.run(down).await?) });
        }
        let down = shutdown.clone();
        let served = backend.clone();
        parts.spawn(async move {
            api::serve(socket, served, down).await;
            Ok(())
        });
        if let Some((port, face)) = port {
            let (served, down) = (backend.clone(), shutdown.clone());
            parts.spawn(async move {
                api::serve_tcp(port, face, served, down).await;
                Ok(())
            });
        }
        Ok(Self { parts, backend, stop, leave })
    }

    /// Says when it is to end.
    pub fn shutdown(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Waits until there is a reason to end.
    pub async fn until(&mut self, signals: &mut Signals, reloading: &Arc<Reloading>) -> End {
        loop {
            tokio::select! {
                ended = self.parts.join_next() => return End::Part(ended.map_or(Ok(()), outcome)),
                () = reloading.wanted() => return End::Reload,
                _ = signals.terminate.recv() => return End::Asked,
                _ = signals.interrupt.recv() => return End::Asked,
                _ = signals.hang_up.recv() => {
                    let reloading = reloading.clone();
                    // What is wrong is told, and changes nothing.
                    let read = tokio::task::spawn_blocking(move || reloading.reload()).await;
                    if let Ok(Err(refusal)) = read {
                        tracing::error!(cause = refusal.cause, hint = refusal.hint, "not reloaded: {}", refusal.error);
                    }
                }
            }
        }
    }

    /// Ends all parts. Trainers are asked to save first, or left to go on.
    ///
    /// # Errors
    /// What a part could not do at its end.
    pub async fn end(mut self, leaves_trainers: bool) -> Result<(), ServiceError> {
        // Whoever hears of the end has heard of this before.
        let _ = self.leave.send(leaves_trainers);
        let _ = self.stop.send(true);
        let mut result = Ok(());
        while let Some(ended) = self.parts.join_next().await {
            let ended = outcome(ended);
            result = result.and(ended);
        }
        result
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

fn outcome(ended: Result<Result<(), ServiceError>, JoinError>) -> Result<(), ServiceError> {
    ended.unwrap_or_else(|error| Err(ServiceError::Task(error.to_string())))
}
