//! The model card: what a person reads first, with the loss curve, the data and the cost.

use std::fmt::Write as _;

use artifacts::release::Provenance;

use super::curve::Point;

/// The file of the drawn curve, beside the card.
pub const CURVE: &str = "loss.svg";

/// The card's text.
pub fn text(provenance: &Provenance, curve: &[Point]) -> String {
    let mut card = String::new();
    write(&mut card, provenance, curve);
    card
}

fn write(card: &mut String, provenance: &Provenance, curve: &[Point]) {
    let plan = &provenance.plan;
    let name = provenance.name.as_deref().unwrap_or_default();
    // Writing into a string does not fail.
    let _ = writeln!(
        card,
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- lrpath\n---\n"
    );
    let _ = writeln!(card, "# {name}: version {} by {}\n", provenance.version, provenance.paradigm);
    let _ = match (plan.branch_point, plan.decay_steps, plan.alpha) {
        (Some(point), Some(steps), Some(alpha)) => writeln!(
            card,
            "A branch of {steps} steps that leaves the main path at step {point} (alpha {alpha}) and decays the learning \
             rate from {} to {} ({}).",
            provenance.rates.peak, provenance.rates.min, provenance.rates.shape
        ),
        _ => writeln!(
            card,
            "Trained up to step {}, with the learning rate decaying from {} to {} ({}).",
            plan.end, provenance.rates.peak, provenance.rates.min, provenance.rates.shape
        ),
    };
    let steps = &provenance.steps;
    let _ = writeln!(
        card,
        "\n## Cost\n\n| | steps |\n|---|--:|\n| all versions up to this one | {} |\n| the same from scratch | {} |\n| ratio | \
         {:.4} |",
        steps.distinct, steps.from_scratch, steps.ratio
    );
    let stream = &provenance.stream;
    let _ = writeln!(
        card,
        "\nA step is {} sequences of {} tokens.",
        stream.sequences_per_step, stream.sequence_length
    );
    if stream.tokenizer.is_none() {
        let _ = writeln!(
            card,
            "\nThere is no tokenizer here: everything came as tokens, and the one that made them was not given."
        );
    }
    if !provenance.evaluations.is_empty() {
        let _ = writeln!(
            card,
            "\n## Held-out loss\n\n| increment | loss (nats a token) | perplexity | bits a byte | tokens |\n|--:|--:|--:|--:|--:|"
        );
        for e in &provenance.evaluations {
            let bits = e.bits_per_byte.map_or_else(|| "-".to_owned(), |bits| format!("{bits:.4}"));
            let _ = writeln!(
                card,
                "| {} | {:.4} | {:.2} | {bits} | {} |",
                e.increment, e.loss, e.perplexity, e.tokens
            );
        }
    }
    if let (Some(first), Some(last)) = (curve.first(), curve.last()) {
        let _ = writeln!(
            card,
            "\n## Training loss\n\n![training loss]({CURVE})\n\nFrom {:.3} at step {:.0} to {:.3} at step {:.0}.",
            first.loss, first.step, last.loss, last.step
        );
    }
    let bytes: u64 = provenance.shards.iter().map(|shard| shard.bytes).sum();
    let tokens: u64 = provenance.shards.iter().map(|shard| shard.tokens).sum();
    let _ = writeln!(
        card,
        "\n## Data\n\n{} shards, {bytes} bytes, {tokens} tokens; names and digests are in `lrpath.json`, with everything \
         else that this version's bits hang on.",
        provenance.shards.len()
    );
}

/// How the line starts that speaks of withdrawn shards.
const WITHDRAWN: &str = "> **Withdrawn data:**";

/// A card that says, below its title, which withdrawn shards the version saw; of none, it says nothing.
pub fn marked(card: &str, shards: &[&str]) -> String {
    let mut lines: Vec<&str> = card.lines().collect();
    if let Some(old) = lines.iter().position(|line| line.starts_with(WITHDRAWN)) {
        lines.drain(old.saturating_sub(1)..=old);
    }
    let them = if shards.len() == 1 { "it" } else { "them" };
    let mark = format!(
        "{WITHDRAWN} this version saw {}, withdrawn after it was published. Versions that are made after that have not \
         seen {them}.",
        shards.join(", ")
    );
    if !shards.is_empty() {
        let title =
            lines.iter().position(|line| line.starts_with("# ")).map_or(lines.len(), |title| title + 1);
        lines.splice(title..title, ["", &mark]);
    }
    lines.join("\n") + "\n"
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const MARGIN: f64 = 48.0;

/// The curve as a drawing: loss against steps.
pub fn drawing(curve: &[Point]) -> String {
    let bounds = |value: fn(&Point) -> f64| {
        curve
            .iter()
            .map(value)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let ((first, last), (low, high)) = (bounds(|p| p.step), bounds(|p| p.loss));
    let scale = |value: f64, low: f64, high: f64, length: f64| {
        if high > low { (value - low) / (high - low) * length } else { length / 2.0 }
    };
    let mut points = String::new();
    for point in curve {
        let x = MARGIN + scale(point.step, first, last, WIDTH - 2.0 * MARGIN);
        let y = HEIGHT - MARGIN - scale(point.loss, low, high, HEIGHT - 2.0 * MARGIN);
        let _ = write!(points, "{x:.1},{y:.1} ");
    }
    let (left, right, top, bottom) = (MARGIN, WIDTH - MARGIN, MARGIN, HEIGHT - MARGIN);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<path d=\"M{left} {top}V{bottom}H{right}\" \
         fill=\"none\" stroke=\"#888\"/>\n<polyline points=\"{}\" fill=\"none\" stroke=\"#2563eb\" stroke-width=\"1.5\"/>\n\
         <text x=\"{left}\" y=\"{}\">{first:.0}</text>\n<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{last:.0} \
         steps</text>\n<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{high:.2}</text>\n<text x=\"{}\" y=\"{bottom}\" \
         text-anchor=\"end\">{low:.2}</text>\n<text x=\"{left}\" y=\"24\">training loss, nats a token</text>\n</svg>\n",
        points.trim_end(),
        bottom + 18.0,
        bottom + 18.0,
        left - 6.0,
        top + 4.0,
        left - 6.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_says_below_its_title_what_was_withdrawn_and_says_it_once() {
        let card = "---\ntags:\n- lrpath\n---\n\n# march: version 2\n\nA branch.\n\n# Another title\n";
        let once = marked(card, &["wrong.txt"]);
        let expected = "---\ntags:\n- lrpath\n---\n\n# march: version 2\n\n> **Withdrawn data:** this version saw wrong.txt, \
                        withdrawn after it was published. Versions that are made after that have not seen it.\n\nA branch.\n\n\
                        # Another title\n";
        assert_eq!(once, expected);
        assert_eq!(marked(&once, &["wrong.txt"]), once);
        let twice = marked(&once, &["wrong.txt", "b.txt"]);
        assert_eq!(twice.matches("Withdrawn data").count(), 1);
        assert!(
            twice.contains("saw wrong.txt, b.txt, withdrawn") && twice.contains("have not seen them."),
            "{twice}"
        );
        assert!(marked("no title", &["wrong.txt"]).starts_with("no title\n\n> **Withdrawn data:**"));
    }
}
