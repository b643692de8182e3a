//! Text from a model, token by token.

use std::io::{self, Write};
use std::path::Path;

use candle_core::Device;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokenizers::Tokenizer;

use crate::failure::{Failure, Kind};
use crate::kernels::Kernels;
use crate::model::{Cache, Config, Decoder, Weights};

/// How the next token is chosen.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// Divides the logits; at 0 the likeliest token is taken.
    pub temperature: f64,
    /// Only so many of the likeliest tokens are thought of; all if not given.
    pub top_k: Option<usize>,
    /// Seed of the choice.
    pub seed: u64,
}

/// A model and its tokenizer.
pub struct Writer {
    config: Config,
    weights: Weights,
    tokenizer: Tokenizer,
}

impl Writer {
    /// Reads a model's folder.
    pub fn open(folder: &Path, config: &Path, tokenizer: &Path) -> Result<Self, Failure> {
        let config = Config::read(config)?;
        let weights = Weights::read_folder(&config, folder, &Device::Cpu)?;
        let tokenizer = Tokenizer::from_file(tokenizer).map_err(|error| {
            let kind = if tokenizer.exists() { Kind::Config } else { Kind::NoInput };
            Failure::new(
                kind,
                format!("`{}`: is not a tokenizer that can be read: {error}", tokenizer.display()),
            )
        })?;
        Ok(Self { config, weights, tokenizer })
    }

    /// Writes the prompt and up to `count` tokens after it to `output`, each as soon as it is known; ends earlier at the
    /// model's end of text.
    ///
    /// Where the model's positions are used up, the second half of them is read again as the beginning.
    pub fn write(
        &self,
        kernels: &dyn Kernels,
        prompt: &str,
        count: usize,
        sampling: &Sampling,
        output: &mut dyn Write,
    ) -> Result<(), Failure> {
        let positions = self.config.positions;
        let decoder = Decoder::new(&self.config, kernels, &self.weights.detached(), positions)?;
        let mut tokens = self.prompt(prompt)?;
        let unsaid =
            |error: io::Error| Failure::new(Kind::Io, format!("the text cannot be written: {error}"));
        output.write_all(prompt.as_bytes()).map_err(unsaid)?;
        let mut stream = self.tokenizer.decode_stream(true);
        let mut draw = Draw::new(sampling);
        let mut cache = Cache::default();
        for _ in 0..count {
            if cache.positions() == 0 || tokens.len() > positions {
                cache = Cache::default();
                tokens.drain(..tokens.len().saturating_sub(positions.div_ceil(2)));
            }
            let logits = decoder.logits_after(&tokens[cache.positions()..], &mut cache)?.to_vec1::<f32>()?;
            let token = draw.next(&logits);
            if Some(token) == self.config.end_of_text {
                break;
            }
            tokens.push(token);
            let text = stream.step(token).map_err(|error| Failure::new(Kind::Software, error))?;
            if let Some(text) = text {
                output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(unsaid)?;
            }
        }
        output.write_all(b"\n").and_then(|()| output.flush()).map_err(unsaid)
    }

    fn prompt(&self, prompt: &str) -> Result<Vec<u32>, Failure> {
        let encoded = self
            .tokenizer
            .encode(prompt, true)
            .map_err(|error| Failure::new(Kind::Data, format!("the prompt cannot be tokenised: {error}")))?;
        let mut tokens = encoded.get_ids().to_vec();
        // A model without a beginning of text starts as if after another one's end.
        if tokens.is_empty() {
            tokens.push(self.config.end_of_text.unwrap_or(0));
        }
        match tokens.iter().find(|token| **token as usize >= self.config.vocabulary) {
            Some(token) => Err(Failure::new(
                Kind::Config,
                format!(
                    "the tokenizer gives token {token}, but the model knows {}: they do not belong together",
                    self.config.vocabulary
                ),
            )),
            None => Ok(tokens),
        }
    }
}

/// Draws tokens from logits.
struct Draw<'a> {
    sampling: &'a Sampling,
    random: ChaCha20Rng,
}

impl<'a> Draw<'a> {
    fn new(sampling: &'a Sampling) -> Self {
        Self { sampling, random: ChaCha20Rng::seed_from_u64(sampling.seed) }
    }

    /// A token, likelier ones more often.
    fn next(&mut self, logits: &[f32]) -> u32 {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
        let likeliest = order.first().copied().unwrap_or(0);
        if self.sampling.temperature == 0.0 {
            return likeliest;
        }
        order.truncate(self.sampling.top_k.unwrap_or(order.len()).max(1));
        let highest = f64::from(logits[likeliest as usize]);
        let weight = |token: &u32| {
            libm::exp((f64::from(logits[*token as usize]) - highest) / self.sampling.temperature)
        };
        let weights: Vec<f64> = order.iter().map(weight).collect();
        let unit = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = unit * weights.iter().sum::<f64>();
        for (token, weight) in order.iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return *token;
            }
        }
        likeliest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(temperature: f64, top_k: Option<usize>, seed: u64) -> Vec<u32> {
        let sampling = Sampling { temperature, top_k, seed };
        let mut draw = Draw::new(&sampling);
        (0..200).map(|_| draw.next(&[0.0, 3.0, 2.0, f32::NEG_INFINITY])).collect()
    }

    #[test]
    fn temperature_0_takes_the_likeliest_token() {
        assert_eq!(drawn(0.0, None, 1), vec![1; 200]);
        assert_eq!(drawn(1.0, Some(1), 1), vec![1; 200]);
    }

    #[test]
    fn likelier_tokens_come_more_often_and_impossible_ones_never() {
        let tokens = drawn(1.0, None, 7);
        let count = |token| tokens.iter().filter(|t| **t == token).count();
        assert!(count(1) > count(2) && count(2) > count(0) && count(0) > 0 && count(3) == 0);
        assert!(drawn(1.0, Some(2), 7).iter().all(|token| [1, 2].contains(token)));
        assert_eq!(drawn(1.0, None, 7), tokens);
        assert_ne!(drawn(1.0, None, 8), tokens);
    }
}
