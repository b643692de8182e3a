//! The golden cases, the laws' own definitions, and every refusal.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::decay::Decay;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    warmup_steps: u64,
    branch_point: u64,
    decay_steps: u64,
    shape: Decay,
    peak: f64,
    min: f64,
    tissue: Tissue,
    multi_power: MultiPower,
    tissue_points: Vec<(u64, f64)>,
    multi_power_points: Vec<(u64, f64)>,
}

fn settings(warmup_steps: u64, decay: Decay, peak: f64, min: f64) -> Settings {
    Settings { warmup_steps, decay, peak, min, ..Settings::default() }
}

/// The main path up to a branch point, and a branch.
fn branch(settings: &Settings, branch_point: u64, decay_steps: u64) -> Result<Curve, LossError> {
    let steps = branch_point + decay_steps;
    let increments = Increments::new(&[steps], decay_steps as f64 / steps as f64).unwrap();
    Curve::new(Paradigm::PathSwitching, &increments, 1, settings)
}

#[test]
fn every_loss_is_reproduced() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../vectors/loss_laws.json")).unwrap();
    assert_eq!(cases.len(), 18);
    for (number, case) in cases.iter().enumerate() {
        let settings = settings(case.warmup_steps, case.shape, case.peak, case.min);
        let curve = branch(&settings, case.branch_point, case.decay_steps).unwrap();
        for (law, points) in [
            (Law::Tissue(case.tissue), &case.tissue_points),
            (Law::MultiPower(case.multi_power), &case.multi_power_points),
        ] {
            let steps: Vec<u64> = points.iter().map(|(step, _)| *step).collect();
            let losses = law.losses(&curve, &steps).unwrap();
            assert_eq!(losses.len(), points.len(), "{number}");
            for ((step, golden), loss) in points.iter().zip(losses) {
                assert!(
                    (loss - golden).abs() <= 1e-9 * golden.abs(),
                    "{number}, step {step}: {loss}, not {golden}"
                );
            }
        }
    }
}

const TISSUE: Tissue = Tissue { l0: 2.6, a_weight: 0.45, a_power: 0.53, c: 0.4, lambda: 0.99 };
const MULTI_POWER: MultiPower =
    MultiPower { l0: 2.79, a_weight: 0.59, a_power: 0.46, b: 521.4, c: 0.24, beta: 0.6, gamma: 0.65 };

prop_compose! {
    fn curve()(
        (warmup_steps, more, decay_steps) in (0..20_u64, 1..60_u64, 1..40_u64),
        decay in prop::sample::select(&Decay::ALL),
    ) -> (Settings, u64, u64) {
        (settings(warmup_steps, decay, 3e-4, 3e-5), warmup_steps + more, decay_steps)
    }
}

proptest! {
    /// As the papers write them down: sums over all steps, each from its beginning.
    #[test]
    fn the_recursions_are_the_double_sums((settings, branch_point, decay_steps) in curve()) {
        let curve = branch(&settings, branch_point, decay_steps).unwrap();
        let rates: Vec<f64> = curve.rates().collect();
        let (peak, warmup) = (settings.peak, settings.warmup_steps as usize);
        let last = rates.len() - 1;
        prop_assert_eq!(curve.steps(), rates.len() as u64);

        let as_peak: Vec<f64> =
            rates.iter().enumerate().map(|(step, rate)| if step < warmup { peak } else { *rate }).collect();
        let before = |rates: &[f64], step: usize| step.checked_sub(1).map_or(peak, |step| rates[step]);
        let mut annealed = 0.0;
        for i in 0..=last {
            for k in 0..=i {
                annealed += (before(&as_peak, k) - as_peak[k]) * libm::pow(TISSUE.lambda, (i - k) as f64);
            }
        }
        let sum: f64 = as_peak.iter().sum();
        let expected = TISSUE.l0 + TISSUE.a_weight * libm::pow(sum, -TISSUE.a_power) - TISSUE.c * annealed;
        let loss = Law::Tissue(TISSUE).final_loss(&curve).unwrap();
        prop_assert!((loss - expected).abs() < 1e-9, "{loss}, not {expected}");

        let law = MULTI_POWER;
        let mut decayed = 0.0;
        for k in warmup..=last {
            let left = if k == warmup { peak } else { rates[k - 1] };
            let sum: f64 = rates[k..].iter().sum();
            let x = law.c * libm::pow(rates[k], -law.gamma) * sum;
            decayed += (left - rates[k]) * (1.0 - libm::pow(x + 1.0, -law.beta));
        }
        let sum: f64 = rates.iter().sum();
        let expected = law.l0 + law.a_weight * libm::pow(sum, -law.a_power) - law.b * decayed;
        let loss = Law::MultiPower(law).final_loss(&curve).unwrap();
        prop_assert!((loss - expected).abs() < 1e-9, "{loss}, not {expected}");
    }
}

#[test]
fn the_way_to_a_version_is_its_own() {
    let settings = settings(2, Decay::Cosine, 3e-4, 3e-5);
    let increments = Increments::new(&[10, 20], 0.5).unwrap();
    let rates = |paradigm, version| {
        Curve::new(paradigm, &increments, version, &settings).unwrap().rates().collect::<Vec<f64>>()
    };
    let switched = rates(Paradigm::PathSwitching, 2);
    assert_eq!(switched.len(), 30);
    assert!(switched[2..20].iter().all(|rate| *rate == 3e-4), "the main path, also where branch 1 decayed");
    assert!(switched[20] < 3e-4 && switched[29] == 3e-5);
    let scratch = rates(Paradigm::FromScratch, 2);
    assert_eq!((scratch.len(), scratch[29]), (30, 3e-5));
    assert!(scratch[12] < 3e-4);
    let continual = rates(Paradigm::Continual, 2);
    assert_eq!((continual.len(), continual[9], continual[29]), (30, 3e-5, 3e-5));
    assert!(continual[10] > 2e-4, "it rises again");
    assert_eq!(rates(Paradigm::Continual, 1), rates(Paradigm::FromScratch, 1));
}

#[test]
fn what_a_law_cannot_say_is_refused_with_its_name() {
    let of = |min| branch(&settings(2, Decay::Linear, 3e-4, min), 10, 5).unwrap();
    let refused = |law: Law, curve: &Curve, step| law.losses(curve, &[step]).unwrap_err().to_string();
    let nan = Tissue { c: f64::NAN, ..TISSUE };
    assert_eq!(refused(Law::Tissue(nan), &of(0.0), 1), "C: NaN must be a finite number, 0 or more");
    let forgets = Tissue { lambda: 1.0, ..TISSUE };
    assert_eq!(refused(Law::Tissue(forgets), &of(0.0), 1), "lambda: 1 must be at least 0 and below 1");
    let flat = MultiPower { beta: 0.0, ..MULTI_POWER };
    assert_eq!(refused(Law::MultiPower(flat), &of(3e-5), 4), "beta: 0 must be a finite number above 0");
    assert!(refused(Law::MultiPower(MULTI_POWER), &of(0.0), 14).starts_with("min: "));
    assert!(refused(Law::MultiPower(MULTI_POWER), &of(3e-5), 1).contains("from step 2 to 14"));
    assert!(refused(Law::Tissue(TISSUE), &of(0.0), 15).contains("from step 0 to 14"));
    let long = branch(&settings(2, Decay::Linear, 3e-4, 0.0), MOST_STEPS, 1).unwrap_err();
    assert!(long.to_string().contains("too long"), "{long}");
}
