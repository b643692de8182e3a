//! The exponential function, in a form that the compiler turns into vector instructions.
//!
//! The libraries' own is a call for every number; here it is a polynomial without a branch. It is used by the softmax of
//! the attention and of the loss and by the sigmoid, and so decides their last bits.

use super::isa::Version;

/// Below it the result is 0, above the other it is infinite; between them the power of two is in range for two factors.
const LOWEST: f32 = -104.0;
const HIGHEST: f32 = 89.0;

/// 1.5 * 2^23: adding it rounds to an integer, which then stands in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// ln 2 in two parts. The first has 9 bits, so that its multiples are exact.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `(e^r - 1 - r) / r^2` for |r| <= ln(2) / 2, from the highest power (Cephes, expf).
const POLYNOMIAL: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// `e^x` to within 2 units in the last place, with gradual underflow; infinite from 88.73, and NaN of NaN.
#[inline(always)]
pub fn exp<V: Version>(x: f32) -> f32 {
    // Comparisons, and not `clamp`: NaN goes through.
    let x = if x < LOWEST { LOWEST } else { x };
    let x = if x > HIGHEST { HIGHEST } else { x };
    let shifted = V::mul_add(x, std::f32::consts::LOG2_E, ROUND);
    let power = shifted - ROUND;
    let r = V::mul_add(power, -LN_2_HIGH, x);
    let r = V::mul_add(power, -LN_2_LOW, r);
    let mut p = POLYNOMIAL[0];
    for coefficient in &POLYNOMIAL[1..] {
        p = V::mul_add(p, r, *coefficient);
    }
    let p = V::mul_add(p * r, r, r) + 1.0;
    // 2^power in two factors: one alone could not be a number where the result still is.
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = power >> 1;
    p * power_of_two(half) * power_of_two(power.wrapping_sub(half))
}

#[inline(always)]
fn power_of_two(power: i32) -> f32 {
    f32::from_bits((power.wrapping_add(127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::super::isa::{Isa, dispatch};
    use super::*;

    #[inline(always)]
    fn all_body<V: Version>(x: &[f32], y: &mut [f32]) {
        for (x, y) in x.iter().zip(y) {
            *y = exp::<V>(*x);
        }
    }

    dispatch! { fn all(x: &[f32], y: &mut [f32]) = all_body }

    fn of(isa: Isa, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        all(isa, x, &mut y);
        y
    }

    /// The distance between two f32 numbers at a value.
    fn unit(value: f64) -> f64 {
        libm::exp2(libm::floor(libm::log2(value)).max(-126.0) - 23.0)
    }

    #[test]
    fn the_error_is_below_two_units_over_the_whole_range() {
        let even = (0..2_000_000).map(|i| -104.0 + i as f32 * (192.8 / 2_000_000.0));
        // All magnitudes, both signs.
        let magnitudes = (0..0x42d0_0000u32).step_by(1021).map(f32::from_bits).flat_map(|x| [x, -x]);
        let x: Vec<f32> = even.chain(magnitudes).filter(|x| *x < 88.722).collect();
        for isa in Isa::available() {
            let mut largest = 0f64;
            for (x, y) in x.iter().zip(of(isa, &x)) {
                let expected = libm::exp(f64::from(*x));
                let error = (f64::from(y) - expected).abs() / unit(expected);
                assert!(error < 2.0, "{}: exp({x}) = {y}, {error} units off", isa.name());
                largest = largest.max(error);
            }
            println!("{}: {largest} units", isa.name());
        }
    }

    #[test]
    fn the_ends_are_those_of_the_function() {
        for isa in Isa::available() {
            let x = [-104.0, -1e9, f32::NEG_INFINITY, 0.0, -0.0, 88.73, 1e9, f32::INFINITY];
            let inf = f32::INFINITY;
            assert_eq!(of(isa, &x), [0.0, 0.0, 0.0, 1.0, 1.0, inf, inf, inf], "{}", isa.name());
            assert!(of(isa, &[f32::NAN])[0].is_nan());
            assert_eq!(of(isa, &[-103.0])[0], f32::from_bits(1), "gradual underflow");
        }
    }
}
