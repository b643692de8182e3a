//! The loop of one job.
//!
//! From a fixed step to a fixed step: batch, gradient, guard, update, event. Checkpoints are written beside it, and its
//! last words are always one of `finished`, `stopped` and `failed`, after everything that they imply is safe on disk.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::data::{Ahead, Batch, Data, Rates, TokenFiles};
use crate::device;
use crate::evaluate;
use crate::events::Events;
use crate::failure::{Failure, Kind};
use crate::guard;
use crate::memory;
use crate::model::Weights;
use crate::optimizer::Optimizer;
use crate::parallel::Ranks;
use crate::spikes::Spikes;
use crate::start::Beginning;
use crate::state::{Saver, Snapshot, Written};
use crate::step::{self, Arithmetic, Shared, Step};
use crate::task::Task;
use artifacts::checkpoint::{self, State};
use artifacts::event::{self, Event};
use artifacts::job::Job;
use artifacts::storage::Storage;
use candle_core::Device;

/// How an attempt ends that does not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Finished,
    /// It was asked to stop, and saved.
    Stopped,
}

/// What the outside asks of a running trainer; set by signal handlers.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    /// Finish the step, save, and stop.
    pub stop: Arc<AtomicBool>,
    /// Save and go on.
    pub save: Arc<AtomicBool>,
}

impl Requests {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What one attempt works with.
pub struct Attempt<'a, W, C> {
    /// The job.
    pub task: &'a Task,
    /// What it computes on.
    pub device: Device,
    /// How its steps are computed there.
    pub arithmetic: Arithmetic<'a>,
    /// The processes that train the job together, where there are several. Those beside the first save and evaluate nothing,
    /// and do not stop before the first does.
    pub ranks: Option<Ranks>,
    /// Where checkpoints are written.
    pub storage: Arc<dyn Storage>,
    /// Bytes of memory that it may take, where that is known.
    pub available: Option<u64>,
    /// What is asked of it while it runs.
    pub requests: Requests,
    /// Its voice.
    pub events: &'a mut Events<W, C>,
}

impl<W: Write, C: Fn() -> f64> Attempt<'_, W, C> {
    /// Trains the job to its end, or until it is asked to stop.
    pub fn run(&mut self) -> Result<End, Failure> {
        let job = &self.task.job;
        let config = self.task.config()?;
        self.arithmetic.check(job.precision)?;
        // It takes its memory now, so that what is free then is free for the steps.
        self.arithmetic.attention(job, &config)?;
        if self.device.is_cpu() {
            let share = self.available.map(|bytes| bytes / u64::from(job.ranks));
            memory::check(job, &config, share)?;
        } else {
            memory::check_on_gpu(job, &config, device::available(&self.device))?;
        }
        let tokens = Arc::new(TokenFiles::open(job, &self.task.folder, config.vocabulary)?);
        evaluate::check(job, &tokens, &self.task.path)?;
        let checkpoints = self.task.resolve(&job.checkpoints.folder);
        if !checkpoints.is_dir() {
            let message =
                format!("`{}` is no folder: make it, checkpoints are saved there", checkpoints.display());
            return Err(Failure::new(Kind::NoInput, message));
        }
        let rates = Rates::read(job, &self.task.folder)?;
        let data = Data::open(job, &self.task.folder, tokens.clone())?;
        let Beginning { weights, optimizer, skipped, norms, kernels, micro_batch } =
            Beginning::of(self.task, &config, &self.device)?;
        let leads = self.ranks.as_ref().is_none_or(|ranks| ranks.rank() == 0);
        let step = self.arithmetic.step(job, &config, &weights)?;
        let step = match self.ranks.take() {
            Some(ranks) => Box::new(Shared::new(step, ranks)),
            None => step,
        };
        warn_of_other_kernels(kernels.as_deref(), &step.name());
        warn_of_another_micro_batch(micro_batch, job.micro_batch);
        let saver = Saver::new(self.storage.clone(), checkpoints, self.task.patience(&self.requests.stop));
        let first = self.task.first_step();
        let ahead = data.ahead(first, job.to)?;
        self.say_started(first, step.name(), weights.parameters())?;
        let times = StepTimes::default();
        let spikes = Spikes::new(job.spikes.clone(), norms);
        let mut training =
            Training { leads, tokens, rates, ahead, weights, optimizer, skipped, spikes, step, saver, times };
        let end = self.train(&mut training, first);
        if training.times.steps > 0 {
            log(&training.times);
        }
        if end.is_err() {
            self.say_last_saved(&mut training.saver);
        }
        end
    }

    fn train(&mut self, training: &mut Training<'_>, first: u64) -> Result<End, Failure> {
        let job = &self.task.job;
        let Training {
            tokens, rates, ahead, weights, optimizer, skipped, spikes, step, saver, times, ..
        } = training;
        let leads = training.leads;
        let mut done = first;
        while done < job.to {
            let begun = Instant::now();
            let batch = ahead.take()?;
            let waited = begun.elapsed();
            let loss = step.differentiate(weights, &batch)?;
            let norm = step::norm(&**step)?;
            let rate = rates.of(done);
            let is_told = job.skip.binary_search(&done).is_ok();
            if !is_told {
                guard::finite_step(done, loss, norm)?;
            }
            let skip = is_told || spikes.is_spike(done, norm, skipped);
            if skip {
                skipped.push(done);
            } else {
                optimizer.update(step.passes(), weights, step.gradient(), norm, rate)?;
            }
            let took = begun.elapsed();
            times.add(took, waited);
            self.say_step(&batch, Numbers { loss, norm, rate, seconds: took.as_secs_f64(), skip })?;
            ahead.give_back(batch);
            done += 1;
            self.say_saved(saver.poll()?)?;

            if !leads {
                continue;
            }
            let stop = self.requests.stopping();
            let asked = self.requests.save.swap(false, Ordering::Relaxed);
            let ends = done == job.to && job.checkpoints.at_end;
            if stop || asked || ends || is_due(job.checkpoints.every, done) {
                // One copy at a time: the last one is on disk before the next is taken.
                self.say_saved(saver.finish()?)?;
                saver.submit(Snapshot::take(
                    weights,
                    optimizer,
                    self.state(done, &**step, skipped, spikes),
                )?)?;
            }
            if stop && done < job.to {
                return self.stop(saver, done);
            }
            if done < job.to && is_due(job.evaluation.every, done) {
                self.evaluate(tokens, weights, &mut **step, done)?;
            }
        }
        if !leads {
            return Ok(End::Finished);
        }
        if first == job.to && job.checkpoints.at_end {
            let state = self.state(done, &**step, skipped, spikes);
            saver.submit(Snapshot::take(weights, optimizer, state)?)?;
        }
        self.say_saved(saver.finish()?)?;
        if job.evaluation.at_end || is_due(job.evaluation.every, done) {
            self.evaluate(tokens, weights, &mut **step, done)?;
        }
        if self.requests.stopping() {
            return self.stop(saver, done);
        }
        self.say(Event::Finished { step: done })?;
        Ok(End::Finished)
    }

    /// A checkpoint that was being written when something failed is as good as any: whoever resumes wants to know. What
    /// fails here too is not the failure that is told last.
    fn say_last_saved(&mut self, saver: &mut Saver) {
        let said = saver.finish().map_err(Failure::from).and_then(|saved| self.say_saved(saved));
        if let Err(failure) = said {
            log(format_args!("the checkpoint that was being written is lost too: {failure}"));
        }
    }

    fn stop(&mut self, saver: &mut Saver, step: u64) -> Result<End, Failure> {
        self.say_saved(saver.finish()?)?;
        self.say(Event::Stopped { step })?;
        Ok(End::Stopped)
    }

    fn state(&self, done: u64, step: &dyn Step, skipped: &[u64], spikes: &Spikes) -> State {
        let job = &self.task.job;
        State {
            format: checkpoint::FORMAT,
            path: job.path.clone(),
            step: done,
            precision: job.precision,
            kernels: step.name(),
            micro_batch: job.micro_batch,
            skipped: skipped.to_vec(),
            norms: spikes.norms(),
        }
    }

    fn evaluate(
        &mut self,
        tokens: &TokenFiles,
        weights: &Weights,
        step: &mut dyn Step,
        done: u64,
    ) -> Result<(), Failure> {
        let Requests { stop, .. } = self.requests.clone();
        let asked_to_stop = || stop.load(Ordering::Relaxed);
        say_evaluations(&self.task.job, tokens, weights, step, done, self.events, &asked_to_stop)
    }

    fn say_started(&mut self, step: u64, kernels: String, parameters: u64) -> Result<(), Failure> {
        self.say(Event::Started {
            format: event::FORMAT,
            job: self.task.job.job,
            attempt: self.task.job.attempt,
            pid: std::process::id(),
            step,
            program: crate::PROGRAM.to_owned(),
            kernels,
            threads: rayon::current_num_threads() as u32,
            parameters,
        })
    }

    fn say_step(&mut self, batch: &Batch, numbers: Numbers) -> Result<(), Failure> {
        let job = &self.task.job;
        let step = batch.step;
        let sequences = u64::from(job.sequences_per_step);
        let tokens = sequences * u64::from(job.sequence_length);
        self.say(Event::Step {
            step,
            sequences: [step * sequences, (step + 1) * sequences],
            batch: batch.digest.clone(),
            loss: numbers.loss,
            learning_rate: numbers.rate,
            grad_norm: numbers.norm,
            tokens: (step + 1) * tokens,
            tokens_per_second: tokens as f64 / numbers.seconds.max(1e-9),
            skipped: numbers.skip,
        })
    }

    fn say_saved(&mut self, written: Option<Written>) -> Result<(), Failure> {
        let Some(Written { saved, seconds, stalled_seconds }) = written else { return Ok(()) };
        self.say(Event::Checkpoint {
            path: saved.name,
            step: saved.step,
            digest: saved.digest,
            bytes: saved.bytes,
            seconds: Some(seconds),
            stalled_seconds: Some(stalled_seconds),
        })
    }

    fn say(&mut self, event: Event) -> Result<(), Failure> {
        say(self.events, event)
    }
}

/// What steps are made of.
struct Training<'s> {
    /// Whether this is the rank that speaks, saves and evaluates.
    leads: bool,
    tokens: Arc<TokenFiles>,
    rates: Rates,
    ahead: Ahead,
    weights: Weights,
    optimizer: Optimizer,
    skipped: Vec<u64>,
    spikes: Spikes,
    step: Box<dyn Step + 's>,
    saver: Saver,
    times: StepTimes,
}

/// What the steps of an attempt took, and how much of it they waited for their batches.
#[derive(Debug, Default)]
struct StepTimes {
    steps: u64,
    all: Duration,
    waiting: Duration,
}

impl StepTimes {
    /// A step is done that took so long, and of it waited for its batch.
    fn add(&mut self, step: Duration, waited: Duration) {
        self.steps += 1;
        self.all += step;
        self.waiting += waited;
    }
}

impl fmt::Display for StepTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [all, waiting] = [self.all, self.waiting].map(|time| time.as_secs_f64());
        let share = waiting / all.max(1e-9) * 100.0;
        write!(
            f,
            "{} steps took {all:.3} s, {waiting:.3} s ({share:.2} %) of it waiting for data",
            self.steps
        )
    }
}

/// What is said of a step beside its batch.
struct Numbers {
    loss: f64,
    norm: f64,
    rate: f64,
    seconds: f64,
    skip: bool,
}

/// Evaluates every increment of a job, and says each loss. Ends early, without the rest, when asked to stop.
pub fn say_evaluations<W: Write, C: Fn() -> f64>(
    job: &Job,
    tokens: &TokenFiles,
    weights: &Weights,
    step: &mut dyn Step,
    done: u64,
    events: &mut Events<W, C>,
    asked_to_stop: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    for held_out in &job.evaluation.increments {
        let begun = Instant::now();
        let Some(found) = evaluate::held_out(job, held_out, tokens, weights, step, asked_to_stop)? else {
            continue;
        };
        guard::finite_held_out(done, held_out.increment, found.loss)?;
        let evaluation = Event::Evaluation {
            step: done,
            increment: held_out.increment,
            loss: found.loss,
            perplexity: found.perplexity(),
            bits_per_byte: found.bits_per_byte,
            tokens: found.targets,
            seconds: begun.elapsed().as_secs_f64(),
        };
        say(events, evaluation)?;
    }
    Ok(())
}

fn say<W: Write, C: Fn() -> f64>(events: &mut Events<W, C>, event: Event) -> Result<(), Failure> {
    events.say(event).map_err(|error| {
        Failure::new(Kind::Io, format!("an event cannot be written to standard output: {error}"))
    })
}

/// Whether something that is done at every multiple of `every` is due after `done` steps.
fn is_due(every: Option<u64>, done: u64) -> bool {
    every.is_some_and(|every| done.is_multiple_of(every))
}

/// A run that goes on elsewhere is the same run, but not to the last bit.
fn warn_of_other_kernels(before: Option<&str>, now: &str) {
    if let Some(before) = before.filter(|before| *before != now) {
        log(format_args!(
            "the checkpoint was computed by the kernels `{before}`; going on with `{now}` gives other last bits"
        ));
    }
}

/// Somebody has changed it: the run goes on, and it is said what that changes.
fn warn_of_another_micro_batch(before: Option<u32>, now: u32) {
    if let Some(before) = before.filter(|before| *before != now) {
        log(format_args!(
            "the checkpoint was trained with a micro_batch of {before}; going on with {now} gives other last bits"
        ));
    }
}

/// A line for people. That it cannot be written is no reason to fail.
fn log(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests;
