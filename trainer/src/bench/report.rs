//! A measurement as people read it.

use std::fmt;

use super::{Report, Share};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
        let giga = |flops: f64| format!("{:.1} GFLOP/s", flops / 1e9);
        let precision = super::words(&self.precision);
        let recompute = match self.recompute {
            Some(recompute) => format!("; recompute {}", super::words(&recompute)),
            None => String::new(),
        };
        writeln!(f, "{}: {precision}, {}, {} threads", self.name, self.kernels, self.threads)?;
        writeln!(
            f,
            "  model       {:.1} million parameters; steps of {} sequences of {} tokens, {} at once{recompute}",
            self.parameters as f64 / 1e6,
            self.sequences_per_step,
            self.sequence_length,
            self.micro_batch
        )?;
        writeln!(
            f,
            "  speed       {:.0} tokens/s, {:.3} s a step (median of {}; CPU {:.3} s)",
            self.tokens_per_second,
            super::median(self.seconds.iter().copied()),
            self.seconds.len(),
            super::median(self.cpu_seconds.iter().copied())
        )?;
        writeln!(
            f,
            "  arithmetic  {}; matrix products reach {} here: MFU {:.1} %",
            giga(self.flops_per_second),
            giga(self.matmul_peak),
            self.mfu * 100.0
        )?;
        writeln!(
            f,
            "              (6 FLOPs a parameter in matrix products and token, and 12 L H hd T of attention: PaLM, appendix B)"
        )?;
        let peak = self.memory.peak.map_or_else(|| "unknown".to_owned(), mebibytes);
        match self.memory.forecast.map(mebibytes) {
            Some(forecast) => {
                writeln!(f, "  memory      {peak} at most; {forecast} were forecast for a step")?;
            }
            None => writeln!(f, "  memory      {peak} at most")?,
        }
        writeln!(f, "\n  {:<24}{:>10}{:>9}{:>11}{:>10}", "", "ms", "share", "GFLOP/s", "of peak")?;
        for Share { name, seconds, share, flops_per_second } in &self.operations {
            write!(f, "  {name:<24}{:>10.2}{:>7.1} %", seconds * 1e3, share * 100.0)?;
            match flops_per_second {
                Some(flops) => {
                    writeln!(f, "{:>11.1}{:>8.1} %", flops / 1e9, flops / self.matmul_peak * 100.0)?;
                }
                None => writeln!(f)?,
            }
        }
        writeln!(
            f,
            "  (of attention half of the square counts here, which causal attention needs; what is recomputed does not)"
        )
    }
}
