//! Text out of nothing: deterministic sentences that a small model can learn something from.

/// A generator of numbers with a seed (SplitMix64, Steele et al. 2014), so that tests need no other source of chance.
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Chance {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below a bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }
}

const WORDS: [&str; 32] = [
    "the",
    "river",
    "carries",
    "a",
    "letter",
    "from",
    "old",
    "mountains",
    "to",
    "new",
    "harbours",
    "and",
    "every",
    "ship",
    "waits",
    "for",
    "its",
    "wind",
    "while",
    "people",
    "count",
    "stars",
    "under",
    "quiet",
    "roofs",
    "of",
    "stone",
    "until",
    "morning",
    "comes",
    "with",
    "bread",
];

/// At least so many bytes of sentences.
pub fn sentences(seed: u64, bytes: usize) -> String {
    let mut chance = Chance(seed);
    let mut text = String::with_capacity(bytes + 128);
    while text.len() < bytes {
        let words = 5 + chance.below(9);
        for word in 0..words {
            if word > 0 {
                text.push(' ');
            }
            // Words follow each other in a pattern, so that there is something to learn.
            let pick = (chance.below(4) + word * 7 + seed % 5) % WORDS.len() as u64;
            text.push_str(WORDS[pick as usize]);
        }
        text.push_str(".\n");
    }
    text
}
