//! What a version was measured on.

use super::Look;
use super::table::{Field, Table};
use super::units::count;
use crate::ledger::transition::Evaluation;

/// Held-out losses of one version.
pub fn draw(evaluations: &[Evaluation], look: &Look) -> String {
    let mut table = Table::new(look, &["held-out increment", "loss", "perplexity", "bits/byte", "tokens"]);
    for evaluation in evaluations {
        let bits = evaluation.bits_per_byte.map_or_else(|| "-".to_owned(), |bits| format!("{bits:.4}"));
        table.row([
            Field::number(format!("v{}", evaluation.increment)),
            Field::number(format!("{:.4}", evaluation.loss)),
            Field::number(format!("{:.2}", evaluation.perplexity)),
            Field::number(bits),
            Field::number(count(evaluation.tokens)),
        ]);
    }
    table.draw()
}
