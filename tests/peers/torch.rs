//! The same model and the same job in torch: logits, gradients, losses of a run.

use artifacts::event::Event;

use crate::python::{self, Run};
use crate::trainer::{Peer, evaluation, job, logits_differences, step, token_file, train};

/// Grouped queries; and a tied head, another base of the rotary embedding, heads wider than the residual stream.
const MODELS: [&str; 2] = [
    "{}",
    r#"{"tie_word_embeddings": true, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 12,
        "rms_norm_eps": 1e-5, "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}}"#,
];

#[test]
fn full_length_logits_equal_those_of_transformers() {
    let peers = Peer::all(MODELS);
    let tokens = peers[0].path("tokens.u32");
    // As many as the models have positions.
    token_file(&tokens, 3, 96);
    let differences =
        logits_differences(&peers.each_ref().map(|peer| peer.path("model")), &tokens, &peers[0].path(""));
    for (settings, difference) in MODELS.into_iter().zip(differences) {
        println!("{settings}: {difference:e}");
        assert!(difference < 1e-5, "{settings}: the logits differ by {difference:e}");
    }
}

#[test]
fn loss_and_every_gradient_of_a_batch_equal_those_of_torch() {
    let peers = Peer::all([MODELS[0], MODELS[0], MODELS[1], MODELS[1]]);
    let (mut losses, mut arguments) = (Vec::new(), Vec::new());
    for (peer, mask_documents) in peers.iter().zip([false, true, false, true]) {
        let job = job(peer, &[1e-3], 1e9, mask_documents);
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
        let difference = (loss - torch["loss"].as_f64().unwrap()).abs();
        assert!(difference < 1e-5, "case {number}: the losses differ by {difference:e}");
        let gradients = torch["differences"].as_object().unwrap();
        assert_eq!(gradients.len() as u64, torch["tensors"].as_u64().unwrap());
        for (name, difference) in gradients {
            println!("case {number}: {name}: {difference}");
            assert!(difference.as_f64().unwrap() < 1e-5, "case {number}: {name} differs by {difference}");
        }
    }
}

#[test]
fn the_losses_of_a_run_equal_those_of_torch() {
    const STEPS: u64 = 20;
    const WARMUP: u64 = 5;
    const CLIP: f64 = 1.4;
    let rate = |step: u64| match step {
        0..WARMUP => 5e-3 * (step + 1) as f64 / WARMUP as f64,
        _ => 5e-3 * (STEPS - step) as f64 / (STEPS - WARMUP) as f64,
    };
    let rates: Vec<f64> = (0..STEPS).map(rate).collect();
    let peers = Peer::all(MODELS);
    let jobs = [false, true].map(|mask| job(&peers[usize::from(mask)], &rates, CLIP, mask));
    let ours = jobs.each_ref().map(|job| train(job));
    let torch: [Run; 2] =
        serde_json::from_value(python::ask("train.py", &jobs.each_ref().map(|job| python::text(job))))
            .unwrap();
    for (number, (ours, torch)) in ours.iter().zip(&torch).enumerate() {
        let steps: Vec<(f64, f64)> = ours.iter().filter_map(step).collect();
        assert_eq!((steps.len(), torch.steps.len()), (rates.len(), rates.len()));
        for (at, ((loss, norm), torch)) in steps.iter().zip(&torch.steps).enumerate() {
            let (loss, norm) = (loss - torch.loss, norm / torch.grad_norm - 1.0);
            println!(
                "case {number}, step {at}: loss {} and {loss:e}, norm {} and {norm:e}",
                torch.loss, torch.grad_norm
            );
            assert!(loss.abs() < 1e-4, "case {number}: the losses of step {at} differ by {loss:e}");
            assert!(norm.abs() < 1e-3, "case {number}: the gradient norms of step {at} differ by {norm:e}");
        }
        let clipped = steps.iter().filter(|(_, norm)| *norm > CLIP).count();
        assert!(
            (1..steps.len()).contains(&clipped),
            "{clipped} steps were clipped: some should be, and not all"
        );
        assert!(steps[steps.len() - 1].0 < steps[0].0 - 0.1, "nothing was learned: {steps:?}");
        let held_out: Vec<(u32, f64, u64)> = ours.iter().filter_map(evaluation).collect();
        assert_eq!(held_out.len(), torch.held_out.len());
        for ((increment, loss, tokens), torch) in held_out.into_iter().zip(&torch.held_out) {
            assert_eq!((increment, tokens), (torch.increment, torch.tokens));
            let difference = loss - torch.loss;
            assert!(
                difference.abs() < 1e-4,
                "case {number}: increment {increment} differs by {difference:e}"
            );
        }
    }
}
