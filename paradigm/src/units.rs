//! The bound on every count.
//!
//! Counts of steps meet doubles (alpha, learning rates) and travel as JSON numbers into a browser. Both are exact for
//! integers below 2^53 only, so a larger count or total is refused here instead of being rounded somewhere else.

/// The first count that is refused: 2^53.
pub const COUNT_LIMIT: u64 = 1 << 53;

/// A count or total that is too large to be exact everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {value} is too large, counts and totals must be below 2^53 = 9007199254740992")]
pub struct TooLarge {
    /// What was counted, as a reader knows it.
    pub what: &'static str,
    /// The refused value.
    pub value: u64,
}

/// `value`, if it is below [`COUNT_LIMIT`]; `what` names it in the refusal.
pub fn bounded(what: &'static str, value: u64) -> Result<u64, TooLarge> {
    if value < COUNT_LIMIT { Ok(value) } else { Err(TooLarge { what, value }) }
}

/// `left + right`, if the sum is below [`COUNT_LIMIT`]; `what` names the sum in the refusal.
pub fn sum(what: &'static str, left: u64, right: u64) -> Result<u64, TooLarge> {
    bounded(what, left.saturating_add(right))
}

/// The product of `factors`, if it is below [`COUNT_LIMIT`]; `what` names it in the refusal.
pub fn product(what: &'static str, factors: &[u64]) -> Result<u64, TooLarge> {
    bounded(what, factors.iter().fold(1, |product, factor| product.saturating_mul(*factor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_exact_count_passes_and_the_next_is_refused_with_words() {
        assert_eq!(bounded("steps", COUNT_LIMIT - 1), Ok(COUNT_LIMIT - 1));
        let refusal = bounded("steps", COUNT_LIMIT).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "steps: 9007199254740992 is too large, counts and totals must be below 2^53 = 9007199254740992"
        );
    }

    #[test]
    fn a_sum_that_would_wrap_is_refused() {
        assert_eq!(sum("steps", 1, 2), Ok(3));
        assert!(sum("steps", COUNT_LIMIT - 1, 1).is_err());
        assert!(sum("steps", u64::MAX, u64::MAX).is_err());
    }

    #[test]
    fn a_product_that_would_wrap_is_refused() {
        assert_eq!(product("bytes", &[2, 3, 7]), Ok(42));
        assert_eq!(product("bytes", &[COUNT_LIMIT - 1, 1]), Ok(COUNT_LIMIT - 1));
        assert!(product("bytes", &[COUNT_LIMIT / 2, 2]).is_err());
        assert!(product("bytes", &[1 << 33, 1 << 33, 1 << 33]).is_err());
        assert_eq!(product("bytes", &[u64::MAX, u64::MAX, 0]), Ok(0));
    }
}
