//! The passes over all parameters as whole tensors, wherever these lie: what a GPU does until it has kernels of its own.

use candle_core::{DType, Result, Tensor};

use super::{AdamW, Parameter};

pub(super) fn adamw(update: &AdamW, parameter: &Parameter<'_>) -> Result<()> {
    let AdamW { learning_rate, beta1, beta2, eps, correction1, correction2, gradient_scale, .. } = *update;
    let Parameter { values, gradient, moments, decays } = *parameter;
    let weight_decay = if decays { update.weight_decay } else { 0.0 };
    let gradient = (gradient.contiguous()? * gradient_scale)?;
    let (first, second) = (&moments.exp_avg, &moments.exp_avg_sq);
    replace(first, &((first * beta1)? + (&gradient * (1.0 - beta1))?)?)?;
    replace(second, &((second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?)?;
    let root = ((second.sqrt()? / correction2.sqrt())? + eps)?;
    let step = ((first / &root)? * (learning_rate / correction1))?;
    replace(values, &((values * (1.0 - learning_rate * weight_decay))? - step)?)
}

pub(super) fn accumulate(sum: &Tensor, x: &Tensor) -> Result<()> {
    replace(sum, &(sum + x)?)
}

/// All sums come from the device at once: it is waited for a single time.
pub(super) fn sum_of_squares(parts: &[Tensor]) -> Result<f64> {
    let sums = parts.iter().map(|part| part.sqr()?.sum_all()).collect::<Result<Vec<_>>>()?;
    let sums: Vec<f64> = Tensor::stack(&sums, 0)?.to_dtype(DType::F64)?.to_vec1()?;
    Ok(sums.iter().sum())
}

fn replace(old: &Tensor, new: &Tensor) -> Result<()> {
    old.slice_set(new, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::numbers::{self, close};
    use crate::kernels::{Moments, inplace};

    fn some(seed: usize) -> Tensor {
        numbers::some(&[20, 30], seed)
    }

    #[test]
    fn updates_are_those_of_the_pass_in_place() {
        let start = || (some(1), Moments { exp_avg: some(2), exp_avg_sq: some(3).sqr().unwrap() });
        let (found, expected) = (start(), start());
        for step in 1..=5 {
            let gradient = some(step * 10);
            let update = AdamW {
                learning_rate: 1e-2,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                correction1: 1.0 - 0.9f64.powi(step as i32),
                correction2: 1.0 - 0.95f64.powi(step as i32),
                gradient_scale: 0.25,
            };
            let decays = step % 2 == 0;
            let (values, moments) = &found;
            adamw(&update, &Parameter { values, gradient: &gradient, moments, decays }).unwrap();
            let (values, moments) = &expected;
            inplace::adamw(&update, &Parameter { values, gradient: &gradient, moments, decays }).unwrap();
        }
        close(&found.0, &expected.0, 1e-6);
        close(&found.1.exp_avg, &expected.1.exp_avg, 1e-6);
        close(&found.1.exp_avg_sq, &expected.1.exp_avg_sq, 1e-6);
    }

    #[test]
    fn sums_are_those_of_the_passes_in_place() {
        let parts = [some(1), some(2), some(3)];
        let expected: f64 = parts.iter().map(|part| inplace::sum_of_squares(part).unwrap()).sum();
        let found = sum_of_squares(&parts).unwrap();
        assert!((found - expected).abs() < 1e-6 * expected, "{found} against {expected}");
        let (one, other) = (some(1), some(1));
        accumulate(&one, &parts[1]).unwrap();
        inplace::accumulate(&other, &parts[1]).unwrap();
        close(&one, &other, 0.0);
    }
}
