//! The same model and the same job in torch: logits, gradients, losses of a run.

use std::path::PathBuf;

use artifacts::event::Event;
use artifacts::job::Precision;
use harness::sizes::SIZES;
use harness::{by_hand, machine, python};

use crate::answers::Run;
use crate::trainer::{Peer, Told, evaluation, job, letters, logits_differences, step, tiny_job, train};

/// Settings of the model of [`tiny_job`].
const TINY: &str = SIZES[0].model;

/// Grouped queries; and a tied head, another base of the rotary embedding, heads wider than the residual stream.
const MODELS: [&str; 2] = [
    "{}",
    r#"{"tie_word_embeddings": true, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 12,
        "rms_norm_eps": 1e-5, "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}}"#,
];

const STEPS: usize = 50;
const WARMUP: usize = 10;
const PEAK: f64 = 1e-3;

/// Gradient norm of the runs: some steps are above it, and not all.
const CLIP: f64 = 1.6;

#[test]
fn full_length_logits_equal_those_of_transformers() {
    let peers = Peer::all(MODELS);
    let tokens = peers[0].path("tokens.u32");
    // As many as the models have positions.
    by_hand::write_tokens(&tokens, &letters()[..96]);
    let differences =
        logits_differences(&peers.each_ref().map(|peer| peer.path("model")), &tokens, &peers[0].path(""));
    for (settings, difference) in MODELS.into_iter().zip(differences) {
        println!("{settings}: {difference:e}");
        assert!(difference < 1e-5, "{settings}: the logits differ by {difference:e}");
    }
}

#[test]
fn loss_and_every_gradient_of_a_batch_equal_those_of_torch() {
    let peers = Peer::all([MODELS[0], MODELS[0], MODELS[1], MODELS[1], TINY]);
    let (mut losses, mut arguments) = (Vec::new(), Vec::new());
    for (number, peer) in peers.iter().enumerate() {
        let told =
            Told { rates: &[PEAK], clip: 1e9, mask_documents: number % 2 == 1, precision: Precision::F32 };
        let job = if number == 4 { tiny_job(peer, &told) } else { job(peer, &told) };
        let step = train(&job).into_iter().find_map(|event| match event {
            Event::Step { loss, .. } => Some(loss),
            _ => None,
        });
        losses.push(step.unwrap());
        arguments.extend([job, peer.path("checkpoints/path-switching.main.g1.s1")]);
    }
    let arguments: Vec<&str> = arguments.iter().map(|path| python::text(path)).collect();
    let torch = python::ask("gradients.py", &arguments);
    assert_ne!(losses[0], losses[1], "documents are masked");
    for (number, (loss, torch)) in losses.iter().zip(torch.as_array().unwrap()).enumerate() {
        let difference = (loss / torch["loss"].as_f64().unwrap() - 1.0).abs();
        assert!(difference < 1e-5, "case {number}: the losses differ by {difference:e}");
        let gradients = torch["differences"].as_object().unwrap();
        assert_eq!(gradients.len() as u64, torch["tensors"].as_u64().unwrap());
        for (name, difference) in gradients {
            println!("case {number}: {name}: {difference}");
            assert!(difference.as_f64().unwrap() < 1e-5, "case {number}: {name} differs by {difference}");
        }
    }
}

/// `make bench` holds the trainer's speed against a model that is written for torch's: it is the same model.
#[test]
fn the_model_of_the_race_is_that_of_transformers() {
    let [peer] = Peer::all([TINY]);
    let told = Told { rates: &[PEAK], clip: 1e9, mask_documents: false, precision: Precision::F32 };
    let hello = python::ask("race.py", &[python::text(&tiny_job(&peer, &told)), "--check"]);
    let difference = hello["difference"].as_f64().unwrap();
    assert!(difference < 1e-6, "the losses of the first step differ by {difference:e}");
}

#[test]
fn the_losses_of_a_run_equal_those_of_torch() {
    let rates = rates();
    let told = |mask_documents| Told { rates: &rates, clip: CLIP, mask_documents, precision: Precision::F32 };
    let peers = Peer::all([MODELS[0], MODELS[1], TINY]);
    let jobs = [job(&peers[0], &told(false)), job(&peers[1], &told(true)), tiny_job(&peers[2], &told(false))];
    let ours = jobs.each_ref().map(|job| train(job));
    for (number, (ours, torch)) in ours.iter().zip(&of_torch(&jobs)).enumerate() {
        let steps: Vec<(f64, f64)> = ours.iter().filter_map(step).collect();
        assert_eq!((steps.len(), torch.steps.len()), (STEPS, STEPS));
        for (at, ((loss, norm), torch)) in steps.iter().zip(&torch.steps).enumerate() {
            let (loss, norm) = (loss / torch.loss - 1.0, norm / torch.grad_norm - 1.0);
            println!(
                "case {number}, step {at}: loss {} and {loss:e}, norm {} and {norm:e}",
                torch.loss, torch.grad_norm
            );
            assert!(loss.abs() < 1e-5, "case {number}: the losses of step {at} differ by {loss:e}");
            assert!(norm.abs() < 1e-3, "case {number}: the gradient norms of step {at} differ by {norm:e}");
        }
        let clipped = steps.iter().filter(|(_, norm)| *norm > CLIP).count();
        assert!((1..STEPS).contains(&clipped), "{clipped} steps were clipped: some should be, and not all");
        assert!(steps[STEPS - 1].0 < steps[0].0 - 0.5, "little was learned: {steps:?}");
        let held_out: Vec<(u32, f64, u64)> = ours.iter().filter_map(evaluation).collect();
        assert_eq!(held_out.len(), torch.held_out.len());
        for ((increment, loss, tokens), torch) in held_out.into_iter().zip(&torch.held_out) {
            assert_eq!((increment, tokens), (torch.increment, torch.tokens));
            let difference = (loss / torch.loss - 1.0).abs();
            println!("case {number}, increment {increment}: {difference:e}");
            assert!(difference < 1e-5, "case {number}: increment {increment} differs by {difference:e}");
        }
    }
}

/// How far a run is from torch's in f32 is its greatest relative difference of a step's loss. Roundings are as good as
/// chance, so a single model says little: ten that begin differently, and the largest, are held against torch together.
#[test]
fn the_losses_of_runs_in_bf16_are_as_near_to_f32_as_those_of_torch() {
    if !machine::multiplies_bf16() {
        println!("skipped: this CPU has no AVX-512-BF16, so the trainer refuses bf16");
        return;
    }
    let rates = rates();
    let told = |precision| Told { rates: &rates, clip: CLIP, mask_documents: false, precision };
    let settings: [String; 11] = std::array::from_fn(|number| match number {
        0 => TINY.to_owned(),
        _ => format!(r#"{{"initializer_range": {}}}"#, 0.04 + 0.01 * number as f64),
    });
    // A model is the same each time that it is made.
    let [f32s, bf16s] = [Precision::F32, Precision::Bf16].map(|precision| {
        let peers = Peer::all(settings.each_ref().map(String::as_str));
        let jobs: [PathBuf; 11] = std::array::from_fn(|number| match number {
            0 => tiny_job(&peers[0], &told(precision)),
            _ => job(&peers[number], &told(precision)),
        });
        (peers, jobs)
    });
    let ours = bf16s.1.each_ref().map(|job| train(job));
    let (in_f32, in_bf16) = (of_torch(&f32s.1), of_torch(&bf16s.1));
    let mut sums = (0.0, 0.0);
    for (number, (ours, (f32, bf16))) in ours.iter().zip(in_f32.iter().zip(&in_bf16)).enumerate() {
        let ours: Vec<f64> = ours.iter().filter_map(step).map(|(loss, _)| loss).collect();
        let [f32, bf16] = [f32, bf16].map(|run| run.steps.iter().map(|step| step.loss).collect::<Vec<f64>>());
        let (of_ours, of_torch) = (distance(&ours, &f32), distance(&bf16, &f32));
        println!("case {number}: {of_ours:e}, torch's bf16 {of_torch:e}");
        assert!(
            of_ours <= 2.0 * of_torch,
            "case {number}: {of_ours:e} from f32, torch's bf16 is {of_torch:e}"
        );
        assert!(ours[STEPS - 1] < ours[0] - 0.5, "little was learned: {ours:?}");
        sums = (sums.0 + of_ours, sums.1 + of_torch);
    }
    assert!(sums.0 <= sums.1, "{:e} from f32 in all, torch's bf16 {:e}", sums.0, sums.1);
}

/// A warm-up to the peak, and the peak.
fn rates() -> Vec<f64> {
    (1..=STEPS).map(|step| PEAK * (step as f64 / WARMUP as f64).min(1.0)).collect()
}

fn of_torch<const N: usize>(jobs: &[PathBuf; N]) -> [Run; N] {
    let runs: Vec<Run> =
        serde_json::from_value(python::ask("train.py", &jobs.each_ref().map(|job| python::text(job))))
            .unwrap();
    runs.try_into().ok().expect("one run for each job")
}

fn distance(losses: &[f64], from: &[f64]) -> f64 {
    assert_eq!((losses.len(), from.len()), (STEPS, STEPS));
    losses.iter().zip(from).map(|(loss, from)| (loss / from - 1.0).abs()).fold(0.0, f64::max)
}
