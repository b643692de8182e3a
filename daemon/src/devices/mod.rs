//! The GPUs of this machine, as their driver tells of them.
//!
//! A driver is somebody else's code: it may not be there, may refuse, may never answer. So it is asked in a thread of its
//! own, only when somebody wants to know, and nobody waits long for it. What it does not say is not told.

mod lock;
mod nvml;
mod proc;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::DeviceName;

pub use lock::Lock;
pub use nvml::Nvml;

/// A GPU, as its driver tells of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// Its number, from 0, in the driver's order.
    pub index: u32,
    /// What it is known by, on this machine and on any other.
    pub uuid: String,
    /// Its maker's name for it.
    pub name: String,
    /// Bytes of its memory.
    pub memory: Option<u64>,
    /// Bytes of it that are in use, whoever uses them.
    pub memory_used: Option<u64>,
    /// Share of the last moments in which it computed, from 0 to 1.
    pub utilisation: Option<f64>,
}

/// Why a device cannot be had now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Its driver does not tell of it.
    #[error("the device {device} is not there: {found}")]
    NotThere {
        /// As the slot names it.
        device: String,
        /// What is.
        found: String,
    },
    /// Somebody has it.
    #[error("the device {device} ({uuid}) is in use by another job on this machine")]
    Held {
        /// As the slot names it.
        device: String,
        /// Its own name.
        uuid: String,
    },
}

/// Who knows the devices.
pub trait Driver: Send {
    /// Those that answer. It may block for as long as it likes.
    fn devices(&mut self) -> Vec<Device>;
    /// Nobody asks any more: what is held open may go.
    fn rest(&mut self);
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// An answer is good for so long.
    pub fresh: Duration,
    /// Whoever asks waits so long at most.
    pub patience: Duration,
    /// After so long without a question the driver is let go: a GPU that somebody holds cannot be reset.
    pub rest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(1),
            patience: Duration::from_secs(2),
            rest: Duration::from_secs(60),
        }
    }
}

/// The devices, for whoever wants to know.
#[derive(Debug)]
pub struct Devices {
    asked: Arc<Asked>,
    wake: Sender<()>,
    pace: Pace,
}

/// What stands between those who ask and the thread that asks the driver.
#[derive(Debug, Default)]
struct Asked {
    known: Mutex<Known>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    devices: Vec<Device>,
    /// When the driver said so.
    at: Option<Instant>,
    /// Since when the driver owes an answer.
    owed: Option<Instant>,
    /// Whether it was told that it does not answer.
    is_silent: bool,
}

impl Asked {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Devices {
    /// Of a driver, which is not asked before somebody asks here.
    pub fn of(driver: impl Driver + 'static, pace: Pace) -> Self {
        let (wake, woken) = channel();
        let asked = Arc::new(Asked::default());
        let answering = asked.clone();
        let thread = std::thread::Builder::new().name("devices".to_owned());
        if let Err(error) = thread.spawn(move || answer(driver, &answering, &woken, pace.rest)) {
            tracing::warn!(%error, "the GPUs' driver cannot be asked");
        }
        Self { asked, wake, pace }
    }

    /// The devices as they are, or were a moment ago. Blocks for a moment at most: a driver that is slower is not waited for,
    /// and no devices are told.
    pub fn look(&self) -> Vec<Device> {
        self.look_for(self.pace.patience)
    }

    /// As [`look`](Self::look), and waits for so long at most.
    pub fn look_for(&self, patience: Duration) -> Vec<Device> {
        let mut known = self.asked.known();
        let now = Instant::now();
        let owed = match known.owed {
            Some(since) => since,
            None if known.at.is_some_and(|at| now.duration_since(at) < self.pace.fresh) => {
                return known.devices.clone();
            }
            // Without its thread there is nobody who could answer.
            None if self.wake.send(()).is_err() => return Vec::new(),
            None => *known.owed.insert(now),
        };
        let left = (owed + patience).saturating_duration_since(now);
        let waited = self
            .asked
            .answered
            .wait_timeout_while(known, left, |known| known.owed.is_some_and(|it| it == owed));
        let (mut known, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if known.owed.is_none_or(|it| it != owed) {
            return known.devices.clone();
        }
        if !known.is_silent {
            known.is_silent = true;
            tracing::warn!("the GPUs' driver does not answer: they are not told of until it does");
        }
        Vec::new()
    }
}

impl Devices {
    /// The GPU that a name stands for; none for the CPU, or for what names no device.
    ///
    /// # Errors
    /// It is not there.
    pub fn find(&self, name: &str) -> Result<Option<Device>, Missing> {
        let name: DeviceName = match name.parse() {
            Ok(DeviceName::Cpu) | Err(_) => return Ok(None),
            Ok(name) => name,
        };
        let devices = self.look();
        let is_meant = |device: &&Device| match &name {
            DeviceName::Cpu => false,
            DeviceName::Numbered(number) => device.index == *number,
            DeviceName::Named(uuid) => device.uuid == *uuid,
        };
        match devices.iter().find(is_meant) {
            Some(device) => Ok(Some(device.clone())),
            None => Err(Missing::NotThere { device: name.to_string(), found: list(&devices) }),
        }
    }

    /// Why a job cannot have a slot's devices now, if it cannot. Those of a shared slot may be in use.
    pub fn missing(&self, devices: &[String], shared: bool) -> Option<Missing> {
        let missing = |name: &String| match self.find(name) {
            Err(missing) => Some(missing),
            Ok(Some(gpu)) if !shared && !Lock::is_free(&gpu.uuid) => {
                Some(Missing::Held { device: name.clone(), uuid: gpu.uuid })
            }
            Ok(_) => None,
        };
        devices.iter().find_map(missing)
    }
}

/// What is there, for whoever misses something.
fn list(devices: &[Device]) -> String {
    match devices {
        [] => "no driver tells of a GPU on this machine".to_owned(),
        _ => {
            let each = devices.iter().map(|device| format!("cuda:{} ({})", device.index, device.uuid));
            format!("there is {}", each.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Asks the driver each time that it is woken, until nobody can wake it any more.
fn answer(mut driver: impl Driver, asked: &Asked, woken: &Receiver<()>, rest: Duration) {
    let mut is_resting = true;
    loop {
        let called = match is_resting {
            true => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => woken.recv_timeout(rest),
        };
        match called {
            Ok(()) => {
                is_resting = false;
                let devices = driver.devices();
                let mut known = asked.known();
                if std::mem::take(&mut known.is_silent) {
                    tracing::info!("the GPUs' driver answers again");
                }
                (known.devices, known.at, known.owed) = (devices, Some(Instant::now()), None);
                drop(known);
                asked.answered.notify_all();
            }
            Err(RecvTimeoutError::Timeout) => {
                driver.rest();
                is_resting = true;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Answers when it is let, and counts how often it was asked and let go.
    struct Scripted {
        lets: Receiver<()>,
        asked: Arc<AtomicU64>,
        rested: Sender<()>,
    }

    impl Driver for Scripted {
        fn devices(&mut self) -> Vec<Device> {
            let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            self.lets.recv().unwrap();
            vec![Device {
                index: 0,
                uuid: "GPU-1".to_owned(),
                name: "a GPU".to_owned(),
                memory: Some(1000),
                memory_used: Some(number),
                utilisation: Some(0.5),
            }]
        }

        fn rest(&mut self) {
            self.rested.send(()).unwrap();
        }
    }

    struct Scene {
        devices: Devices,
        let_answer: Sender<()>,
        asked: Arc<AtomicU64>,
        rested: Receiver<()>,
    }

    fn scene(pace: Pace) -> Scene {
        let (let_answer, lets) = channel();
        let (rested, rests) = channel();
        let asked = Arc::new(AtomicU64::new(0));
        let driver = Scripted { lets, asked: asked.clone(), rested };
        Scene { devices: Devices::of(driver, pace), let_answer, asked, rested: rests }
    }

    fn used(devices: &[Device]) -> Vec<Option<u64>> {
        devices.iter().map(|device| device.memory_used).collect()
    }

    #[test]
    fn an_answer_is_good_for_a_moment() {
        let scene = scene(Pace { fresh: LONG, patience: LONG, rest: LONG });
        assert_eq!(scene.asked.load(Ordering::SeqCst), 0, "nobody wanted to know yet");
        scene.let_answer.send(()).unwrap();
        assert_eq!(used(&scene.devices.look()), [Some(1)]);
        assert_eq!(used(&scene.devices.look()), [Some(1)]);
        assert_eq!(scene.asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_is_old_is_asked_for_anew() {
        let scene = scene(Pace { fresh: Duration::ZERO, patience: LONG, rest: LONG });
        for number in 1..=3 {
            scene.let_answer.send(()).unwrap();
            assert_eq!(used(&scene.devices.look()), [Some(number)]);
        }
    }

    #[test]
    fn many_who_ask_at_once_are_answered_with_one_question() {
        let scene = scene(Pace { fresh: LONG, patience: LONG, rest: LONG });
        std::thread::scope(|threads| {
            let looks: Vec<_> = (0..8).map(|_| threads.spawn(|| scene.devices.look())).collect();
            scene.let_answer.send(()).unwrap();
            for look in looks {
                assert_eq!(used(&look.join().unwrap()), [Some(1)]);
            }
        });
        assert_eq!(scene.asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_driver_that_hangs_holds_nobody_up_and_is_asked_once() {
        let patience = Duration::from_millis(50);
        let scene = scene(Pace { fresh: Duration::ZERO, patience, rest: LONG });
        assert_eq!(scene.devices.look(), []);
        let before = Instant::now();
        for _ in 0..100 {
            assert_eq!(scene.devices.look(), [], "it still owes its first answer");
        }
        assert!(before.elapsed() < Duration::from_secs(2), "only the first who asked has waited");
        assert_eq!(scene.asked.load(Ordering::SeqCst), 1);
        // It comes back: the late answer is taken, and then it is asked as before.
        scene.let_answer.send(()).unwrap();
        scene.let_answer.send(()).unwrap();
        let until = Instant::now() + LONG;
        while used(&scene.devices.look()) != [Some(2)] {
            assert!(Instant::now() < until, "it is never told again");
        }
    }

    #[test]
    fn a_driver_that_nobody_asks_is_let_go_once() {
        let rest = Duration::from_millis(20);
        let scene = scene(Pace { fresh: Duration::ZERO, patience: LONG, rest });
        scene.let_answer.send(()).unwrap();
        scene.devices.look();
        scene.rested.recv_timeout(LONG).unwrap();
        assert!(scene.rested.recv_timeout(rest * 10).is_err(), "it was let go already");
        scene.let_answer.send(()).unwrap();
        assert_eq!(used(&scene.devices.look()), [Some(2)], "and is asked again when somebody wants to know");
    }
}
