//! Whole attempts: what they say, what they leave, and that no interruption shows in either.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use artifacts::event::Line;
use artifacts::job::Start;
use artifacts::manifest;
use artifacts::storage::Disk;
use candle_core::{Device, Tensor};

use super::*;
use crate::fixture::{Fixture, STEPS};
use crate::kernels::{AdamW, Kernels, Mask, Parameter, Passes, Reference, Rotary};

/// What an attempt said, and how it ended.
struct Outcome {
    end: Result<End, Failure>,
    events: Vec<Event>,
}

impl Outcome {
    /// Bits of the loss and the gradient norm of every step.
    fn steps(&self) -> Vec<(u64, u64, u64)> {
        let of = |event: &Event| match event {
            Event::Step { step, loss, grad_norm, .. } => Some((*step, loss.to_bits(), grad_norm.to_bits())),
            _ => None,
        };
        self.events.iter().filter_map(of).collect()
    }

    fn losses(&self) -> Vec<f64> {
        self.steps().iter().map(|(_, loss, _)| f64::from_bits(*loss)).collect()
    }

    fn checkpoints(&self) -> Vec<(u64, artifacts::Digest)> {
        let of = |event: &Event| match event {
            Event::Checkpoint { step, digest, .. } => Some((*step, *digest)),
            _ => None,
        };
        self.events.iter().filter_map(of).collect()
    }

    fn failure(&self) -> &Failure {
        self.end.as_ref().unwrap_err()
    }
}

/// Runs a job on a number of threads; after so many events it is asked to stop, or to save.
fn run_asking(
    fixture: &Fixture,
    arithmetic: Arithmetic<'_>,
    threads: usize,
    stop_after: Option<usize>,
    save_after: Option<usize>,
) -> Outcome {
    let task = Task::read(&fixture.write()).unwrap();
    let requests = Requests::default();
    let said = AtomicUsize::new(0);
    let clock = || {
        let number = said.fetch_add(1, Ordering::Relaxed) + 1;
        if stop_after == Some(number) {
            requests.stop.store(true, Ordering::Relaxed);
        }
        if save_after == Some(number) {
            requests.save.store(true, Ordering::Relaxed);
        }
        number as f64
    };
    let mut stream = Vec::new();
    let mut events = Events::new(&mut stream, clock);
    let mut attempt = Attempt {
        task: &task,
        device: Device::Cpu,
        arithmetic,
        ranks: None,
        storage: Arc::new(Disk),
        available: None,
        requests: requests.clone(),
        events: &mut events,
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let end = pool.install(|| attempt.run());
    let lines = String::from_utf8(stream).unwrap();
    let events = lines.lines().map(|line| serde_json::from_str::<Line>(line).unwrap().event).collect();
    Outcome { end, events }
}

fn run(fixture: &Fixture, threads: usize) -> Outcome {
    run_asking(fixture, Arithmetic::default(), threads, None, None)
}

/// Makes the job go on from the last checkpoint of an attempt.
fn resume(fixture: &mut Fixture, outcome: &Outcome) {
    let (step, digest) = *outcome.checkpoints().last().unwrap();
    let path = fixture.path().join(format!("checkpoints/path-switching.main.g1.s{step}"));
    fixture.job.start = Start::Checkpoint { path, digest, step };
    fixture.job.attempt += 1;
}

#[test]
fn a_whole_job_says_all_that_it_does_in_order() {
    let fixture = Fixture::new();
    let outcome = run(&fixture, 3);
    assert_eq!(outcome.end, Ok(End::Finished));
    let events = &outcome.events;
    assert!(matches!(&events[0], Event::Started { step: 0, job: 1, attempt: 1, format: 1, threads: 3, .. }));
    assert_eq!(
        outcome.steps().iter().map(|(step, _, _)| *step).collect::<Vec<_>>(),
        Vec::from_iter(0..STEPS)
    );
    assert!(outcome.losses()[19] < outcome.losses()[0] - 0.3, "{:?}", outcome.losses());
    assert!(matches!(
        &events[1],
        Event::Step { sequences: [0, 4], tokens: 48, learning_rate: 1e-3, skipped: false, .. }
    ));
    assert_eq!(outcome.checkpoints().iter().map(|(step, _)| *step).collect::<Vec<_>>(), [8, 16, 20]);
    let last = &events[events.len() - 4..];
    assert!(
        matches!(&last[0], Event::Checkpoint { step: 20, path, .. } if path == "path-switching.main.g1.s20")
    );
    assert!(matches!(&last[1], Event::Evaluation { increment: 1, tokens: 55, bits_per_byte: Some(_), .. }));
    assert!(matches!(&last[2], Event::Evaluation { increment: 2, tokens: 42, bits_per_byte: None, .. }));
    assert_eq!(last[3], Event::Finished { step: 20 });
    for (step, digest) in outcome.checkpoints() {
        let folder = fixture.path().join(format!("checkpoints/path-switching.main.g1.s{step}"));
        assert_eq!(manifest::verify(&folder).unwrap(), digest);
    }
}

#[test]
fn a_run_that_was_stopped_and_resumed_has_the_bits_of_one_that_ran_through() {
    let whole = Fixture::new();
    let through = run(&whole, 1);
    let mut fixture = Fixture::new();
    fixture.job.checkpoints.every = None;
    let mut steps = Vec::new();
    // The first event is `started`: the third step is said in the fourth.
    let parts = [(4, 2), (2, 3), (9, 1)].map(|(events, threads)| {
        let outcome = run_asking(&fixture, Arithmetic::default(), threads, Some(events), None);
        assert_eq!(outcome.end, Ok(End::Stopped));
        let at = outcome.checkpoints().last().unwrap().0;
        assert_eq!(outcome.events.last(), Some(&Event::Stopped { step: at }));
        steps.extend(outcome.steps());
        resume(&mut fixture, &outcome);
        at
    });
    assert_eq!(parts, [3, 4, 12]);
    let last = run(&fixture, 4);
    steps.extend(last.steps());
    assert_eq!(steps, through.steps());
    assert_eq!(last.checkpoints().last(), through.checkpoints().last());
    let evaluations = |outcome: &Outcome| {
        let of = |event: &Event| match event {
            Event::Evaluation { loss, .. } => Some(loss.to_bits()),
            _ => None,
        };
        outcome.events.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(evaluations(&last), evaluations(&through));
    assert_eq!(evaluations(&last).len(), 2);
}

#[test]
fn another_seed_gives_other_weights() {
    let mut fixture = Fixture::new();
    let one = run(&fixture, 1);
    fixture.job.start = Start::New { seed: 8 };
    fixture.job.path = "path-switching.main.g2".to_owned();
    assert_ne!(run(&fixture, 1).steps(), one.steps());
}

#[test]
fn asked_to_save_it_saves_and_goes_on() {
    let fixture = Fixture::new();
    let outcome = run_asking(&fixture, Arithmetic::default(), 1, None, Some(6));
    assert_eq!(outcome.end, Ok(End::Finished));
    assert_eq!(outcome.checkpoints().iter().map(|(step, _)| *step).collect::<Vec<_>>(), [5, 8, 16, 20]);
}

#[test]
fn a_job_that_is_already_trained_is_evaluated_and_finished() {
    let mut fixture = Fixture::new();
    let outcome = run(&fixture, 1);
    resume(&mut fixture, &outcome);
    let again = run(&fixture, 1);
    assert_eq!(again.end, Ok(End::Finished));
    assert!(again.steps().is_empty());
    let last = outcome.events.iter().skip(outcome.events.len() - 4).map(without_seconds);
    assert_eq!(again.events[1..].iter().map(without_seconds).collect::<Vec<_>>(), last.collect::<Vec<_>>());
}

/// An event without the wall-clock time that it took.
fn without_seconds(event: &Event) -> Event {
    let mut event = event.clone();
    match &mut event {
        Event::Evaluation { seconds, .. } => *seconds = 0.0,
        Event::Checkpoint { seconds, stalled_seconds, .. } => (*seconds, *stalled_seconds) = (None, None),
        _ => {}
    }
    event
}

#[test]
fn a_checkpoint_that_is_there_and_sound_is_kept() {
    let fixture = Fixture::new();
    let first = run(&fixture, 1);
    let model = fixture.path().join("checkpoints/path-switching.main.g1.s8/model.safetensors");
    let written = fs::metadata(&model).unwrap().modified().unwrap();
    let second = run(&fixture, 1);
    assert_eq!(second.checkpoints(), first.checkpoints());
    assert_eq!(fs::metadata(&model).unwrap().modified().unwrap(), written);
}

#[test]
fn a_damaged_checkpoint_is_neither_replaced_nor_started_from() {
    let mut fixture = Fixture::new();
    let first = run(&fixture, 1);
    let model = fixture.path().join("checkpoints/path-switching.main.g1.s20/model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    bytes[1000] ^= 1;
    fs::write(&model, bytes).unwrap();
    let again = run(&fixture, 1);
    assert_eq!(again.failure().kind, Kind::Checkpoint);
    resume(&mut fixture, &first);
    let resumed = run(&fixture, 1);
    assert_eq!(resumed.failure().kind, Kind::Checkpoint);
    assert!(resumed.failure().message.contains("model.safetensors"), "{}", resumed.failure());
    assert!(resumed.events.is_empty());
}

/// It was refused once: a run whose `trainer.micro_batch` was changed made no version any more.
#[test]
fn a_run_goes_on_with_another_micro_batch_and_its_checkpoints_say_so() {
    let mut fixture = Fixture::new();
    let first = run(&fixture, 1);
    let (step, digest) = first.checkpoints()[0];
    assert!(step < STEPS);
    let folder = |step: u64| fixture.path().join(format!("checkpoints/path-switching.main.g1.s{step}"));
    let (path, last) = (folder(step), folder(STEPS));
    fs::remove_dir_all(&last).unwrap();
    fixture.job.start = Start::Checkpoint { path, digest, step };
    fixture.job.micro_batch = 4;
    let second = run(&fixture, 1);
    assert_eq!(second.end, Ok(End::Finished));
    let losses = second.losses();
    for (found, expected) in losses.iter().zip(&first.losses()[step as usize..]) {
        assert!((found - expected).abs() < 1e-5 * expected, "{found} and {expected}");
    }
    assert_eq!(checkpoint::read_state(&last).unwrap().micro_batch, 4);
}

#[test]
fn a_checkpoint_that_is_not_the_jobs_is_refused() {
    let mut fixture = Fixture::new();
    let first = run(&fixture, 1);
    resume(&mut fixture, &first);
    let start = fixture.job.start.clone();
    let mut refused = |change: &dyn Fn(&mut Job), reason: &str| {
        let before = fixture.job.clone();
        change(&mut fixture.job);
        let outcome = run(&fixture, 1);
        assert_eq!(outcome.failure().kind, Kind::Checkpoint);
        assert!(outcome.failure().message.contains(reason), "{}", outcome.failure());
        fixture.job = before;
    };
    refused(
        &|job| {
            let Start::Checkpoint { path, digest, .. } = &start else { unreachable!() };
            job.start = Start::Checkpoint { path: path.clone(), digest: *digest, step: 19 };
        },
        "is after 20 steps, but the job says 19",
    );
    refused(
        &|job| {
            let Start::Checkpoint { path, step, .. } = &start else { unreachable!() };
            let digest = artifacts::Digest::of(b"another");
            job.start = Start::Checkpoint { path: path.clone(), digest, step: *step };
        },
        "but the job asks for",
    );
}

#[test]
fn a_folder_of_weights_starts_with_new_moments() {
    let mut fixture = Fixture::new();
    let first = run(&fixture, 1);
    let folder = fixture.path().join("checkpoints/path-switching.main.g1.s20");
    fixture.job.start = Start::Folder { path: folder };
    fixture.job.path = "scratch.v1".to_owned();
    fixture.job.checkpoints.every = Some(1);
    let again = run(&fixture, 1);
    assert!(again.losses()[0] < first.losses()[0] - 1.0);
    let state = checkpoint::read_state(&fixture.path().join("checkpoints/scratch.v1.s1")).unwrap();
    assert_eq!((state.path.as_str(), state.step), ("scratch.v1", 1));
    let moments = fs::read(fixture.path().join("checkpoints/scratch.v1.s1/optimizer.safetensors")).unwrap();
    let moments = safetensors::SafeTensors::deserialize(&moments).unwrap();
    let of = |name: &str| {
        let bytes = moments.tensor(&format!("{name}.model.norm.weight")).unwrap().data().to_vec();
        bytes.as_chunks().0.iter().map(|value| f64::from(f32::from_le_bytes(*value))).collect::<Vec<_>>()
    };
    // After one update from zeros both moments say the same of the gradient.
    for (m, v) in of("exp_avg").iter().zip(of("exp_avg_sq")) {
        assert!(((m / 0.1) * (m / 0.1) - v / 0.05).abs() <= 1e-6 * v / 0.05);
    }
}

#[test]
fn a_missing_folder_for_checkpoints_is_said_at_once() {
    let fixture = Fixture::new();
    fs::remove_dir(fixture.path().join("checkpoints")).unwrap();
    let outcome = run(&fixture, 1);
    assert_eq!(outcome.failure().kind, Kind::NoInput);
    assert!(outcome.events.is_empty());
}

#[test]
fn a_skipped_step_changes_nothing_but_the_count() {
    let model = |fixture: &Fixture, step: u64| {
        fs::read(fixture.path().join(format!("checkpoints/path-switching.main.g1.s{step}/model.safetensors")))
            .unwrap()
    };
    let mut fixture = Fixture::new();
    fixture.job.skip = vec![3, 30];
    fixture.job.checkpoints.every = Some(1);
    let through = run(&fixture, 1);
    assert_eq!(model(&fixture, 4), model(&fixture, 3));
    assert_ne!(model(&fixture, 5), model(&fixture, 4));
    let skipped = |event: &&Event| matches!(event, Event::Step { skipped: true, .. });
    assert_eq!(through.events.iter().filter(skipped).count(), 1);
    let state =
        checkpoint::read_state(&fixture.path().join("checkpoints/path-switching.main.g1.s20")).unwrap();
    assert_eq!(state.skipped, [3]);

    let mut again = Fixture::new();
    again.job.skip = vec![3, 30];
    let stopped = run_asking(&again, Arithmetic::default(), 1, Some(7), None);
    resume(&mut again, &stopped);
    assert_eq!(run(&again, 1).checkpoints().last(), through.checkpoints().last());
}

#[test]
fn a_loss_that_is_no_number_fails_before_the_update() {
    let fixture = Fixture::new();
    let rates = [f64::from(f32::MAX); STEPS as usize].map(f64::to_le_bytes).concat();
    fs::write(fixture.path().join("rates.f64"), rates).unwrap();
    let outcome = run(&fixture, 1);
    assert_eq!(outcome.failure().kind, Kind::NotFinite);
    assert!(outcome.failure().message.starts_with("step 1: the loss is NaN"), "{}", outcome.failure());
    assert_eq!(outcome.steps().len(), 1);
}

#[test]
fn a_gradient_that_is_none_fails_until_the_job_says_that_its_step_is_skipped() {
    let mut fixture = Fixture::new();
    fixture.job.checkpoints.every = Some(3);
    let first = run_asking(&fixture, Arithmetic::Autograd(&Faulty::in_step(7, 0)), 1, None, None);
    assert_eq!((first.failure().kind, first.failure().step), (Kind::NotFinite, Some(7)));
    assert_eq!(first.steps().len(), 7, "the step's update is not made, and it is not reported");
    assert_eq!(first.checkpoints().last().unwrap().0, 6);

    // From the last checkpoint: the same.
    resume(&mut fixture, &first);
    let again = run_asking(&fixture, Arithmetic::Autograd(&Faulty::in_step(7, 6)), 1, None, None);
    assert_eq!(again.failure().step, Some(7));
    resume(&mut fixture, &first);
    fixture.job.skip = vec![7];
    let skipped = run_asking(&fixture, Arithmetic::Autograd(&Faulty::in_step(7, 6)), 1, None, None);
    assert_eq!(skipped.end, Ok(End::Finished));
    let norm = skipped.steps()[1].2;
    assert!(f64::from_bits(norm).is_nan());

    // As if it had been known from the start.
    let mut fixture = Fixture::new();
    fixture.job.checkpoints.every = Some(3);
    fixture.job.skip = vec![7];
    let through = run_asking(&fixture, Arithmetic::Autograd(&Faulty::in_step(7, 0)), 1, None, None);
    assert_eq!(through.checkpoints().last(), skipped.checkpoints().last());
    let folder = fixture.path().join("checkpoints/path-switching.main.g1.s20");
    assert_eq!(checkpoint::read_state(&folder).unwrap().skipped, [7]);
}

#[test]
fn evaluation_comes_at_every_multiple_and_at_the_end() {
    let mut fixture = Fixture::new();
    fixture.job.evaluation.every = Some(7);
    fixture.job.evaluation.increments.truncate(1);
    let evaluated = |outcome: &Outcome| {
        let of = |event: &Event| match event {
            Event::Evaluation { step, .. } => Some(*step),
            _ => None,
        };
        outcome.events.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(evaluated(&run(&fixture, 1)), [7, 14, 20]);
    fixture.job.evaluation.at_end = false;
    assert_eq!(evaluated(&run(&fixture, 1)), [7, 14]);
}

/// Kernels with a fault: the `nth` call of an operation loses its weight's gradient, or makes no number of the norm.
struct Faulty {
    operation: &'static str,
    nth: usize,
    calls: AtomicUsize,
}

impl Faulty {
    fn at(operation: &'static str, nth: usize) -> Self {
        Self { operation, nth, calls: AtomicUsize::new(0) }
    }

    /// In a step of a job that begins with another one.
    fn in_step(step: u64, first: u64) -> Self {
        Self::at("sum of squares", (step - first) as usize)
    }

    fn is_due(&self, operation: &str) -> bool {
        operation == self.operation && self.calls.fetch_add(1, Ordering::Relaxed) == self.nth
    }

    fn weight(&self, operation: &str, weight: &Tensor) -> Tensor {
        if self.is_due(operation) { weight.detach() } else { weight.clone() }
    }
}

impl Kernels for Faulty {
    fn name(&self) -> String {
        "faulty".to_owned()
    }

    fn embedding(&self, weight: &Tensor, tokens: &Tensor) -> candle_core::Result<Tensor> {
        Reference.embedding(&self.weight("embedding", weight), tokens)
    }
    fn linear(&self, x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
        Reference.linear(x, &self.weight("linear", weight))
    }
    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f64) -> candle_core::Result<Tensor> {
        Reference.rms_norm(x, &self.weight("norm", weight), eps)
    }
    fn rope(&self, x: &Tensor, rotary: &Rotary) -> candle_core::Result<Tensor> {
        Reference.rope(x, rotary)
    }
    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> candle_core::Result<Tensor> {
        Reference.attention(q, k, v, mask)
    }
    fn swiglu(&self, gate: &Tensor, up: &Tensor) -> candle_core::Result<Tensor> {
        Reference.swiglu(gate, up)
    }
    fn linear_cross_entropy(
        &self,
        x: &Tensor,
        weight: &Tensor,
        targets: &Tensor,
    ) -> candle_core::Result<Tensor> {
        Reference.linear_cross_entropy(x, &self.weight("head", weight), targets)
    }
}

impl Passes for Faulty {
    fn adamw(&self, update: &AdamW, parameters: &[Parameter<'_>]) -> candle_core::Result<()> {
        Reference.adamw(update, parameters)
    }
    fn sum_of_squares(&self, parts: &[Tensor]) -> candle_core::Result<f64> {
        let sum = Reference.sum_of_squares(parts)?;
        Ok(if self.is_due("sum of squares") { f64::NAN } else { sum })
    }
    fn accumulate(&self, sum: &Tensor, x: &Tensor) -> candle_core::Result<()> {
        Reference.accumulate(sum, x)
    }
}

fn stops_at_its_first_step(operation: &'static str, nth: usize, name: &str) {
    let mut fixture = Fixture::new();
    fixture.job.micro_batch = fixture.job.sequences_per_step;
    let cut = Faulty::at(operation, nth);
    let outcome = run_asking(&fixture, Arithmetic::Autograd(&cut), 1, None, None);
    assert_eq!(outcome.failure().kind, Kind::MissingGradient);
    assert!(
        outcome.failure().message.contains(&format!("`{name}` got no gradient")),
        "{}",
        outcome.failure()
    );
    assert!(matches!(outcome.events[..], [Event::Started { .. }]));
    assert_eq!(fs::read_dir(fixture.path().join("checkpoints")).unwrap().count(), 0);
}

/// One test for each kind of tensor, its gradient cut on purpose.
macro_rules! without_a_gradient {
    ($($test:ident: $operation:literal, $nth:literal, $name:literal;)*) => {
        $(#[test]
        fn $test() {
            stops_at_its_first_step($operation, $nth, $name);
        })*
    };
}

without_a_gradient! {
    an_embedding_without_a_gradient_stops_the_run: "embedding", 0, "model.embed_tokens.weight";
    a_query_without_a_gradient_stops_the_run: "linear", 0, "model.layers.0.self_attn.q_proj.weight";
    a_key_without_a_gradient_stops_the_run: "linear", 1, "model.layers.0.self_attn.k_proj.weight";
    a_value_without_a_gradient_stops_the_run: "linear", 2, "model.layers.0.self_attn.v_proj.weight";
    an_output_without_a_gradient_stops_the_run: "linear", 10, "model.layers.1.self_attn.o_proj.weight";
    a_gate_without_a_gradient_stops_the_run: "linear", 11, "model.layers.1.mlp.gate_proj.weight";
    an_up_projection_without_a_gradient_stops_the_run: "linear", 5, "model.layers.0.mlp.up_proj.weight";
    a_down_projection_without_a_gradient_stops_the_run: "linear", 6, "model.layers.0.mlp.down_proj.weight";
    an_input_norm_without_a_gradient_stops_the_run: "norm", 0, "model.layers.0.input_layernorm.weight";
    a_post_norm_without_a_gradient_stops_the_run: "norm", 3, "model.layers.1.post_attention_layernorm.weight";
    the_last_norm_without_a_gradient_stops_the_run: "norm", 4, "model.norm.weight";
    a_head_without_a_gradient_stops_the_run: "head", 0, "lm_head.weight";
}

#[test]
fn a_cut_that_is_never_reached_changes_nothing() {
    let fixture = Fixture::new();
    let cut = Faulty::at("linear", usize::MAX);
    assert_eq!(run_asking(&fixture, Arithmetic::Autograd(&cut), 1, None, None).end, Ok(End::Finished));
}

#[test]
fn what_steps_waited_for_their_data_is_a_share_of_what_they_took() {
    let mut times = StepTimes::default();
    times.add(Duration::from_millis(900), Duration::from_millis(9));
    times.add(Duration::from_millis(1100), Duration::from_millis(1));
    assert_eq!(times.to_string(), "2 steps took 2.000 s, 0.010 s (0.50 %) of it waiting for data");
}
