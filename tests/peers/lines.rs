//! Lines that tokenizers have trouble with.

use harness::corpus;
use harness::text::Chance;

/// Longest line in bytes; no line has more tokens than bytes.
const LONGEST: usize = 240;

/// Words of many scripts, emoji of several code points, marks that combine, odd spaces, things that look like code.
const PARTS: [&str; 48] = [
    "straße",
    "naïve",
    "coöperate",
    "Ångström",
    "İstanbul",
    "Việt Nam",
    "Ελλάδα",
    "ὦ",
    "Россия",
    "ћирилица",
    "Հայաստան",
    "ქართული",
    "שָׁלוֹם",
    "العَرَبِيَّة",
    "فارسی",
    "اردو",
    "हिन्दी",
    "বাংলা",
    "தமிழ்",
    "తెలుగు",
    "ಕನ್ನಡ",
    "മലയാളം",
    "සිංහල",
    "ไทย",
    "ລາວ",
    "မြန်မာ",
    "ខ្មែរ",
    "བོད་ཡིག",
    "አማርኛ",
    "ᏣᎳᎩ",
    "中文",
    "繁體字",
    "日本語",
    "カタカナ",
    "한국어",
    "𠜎𠜱",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "👩‍👩‍👧‍👦",
    "👍🏽",
    "🇺🇳",
    "1️⃣",
    "🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "é",
    "Z̷̢͓a̵l̶g̸o̷",
    "\u{00a0}\u{2003}",
    "\u{200b}\u{feff}",
    "\t x = y[0];\t// 1_000",
    "...!?\"'`—–",
];

/// Lines of the corpus, one from each of so many addresses.
pub fn of_corpus(count: usize) -> Vec<String> {
    let lines: Vec<String> = corpus::files()
        .iter()
        .filter_map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            let begin = text.len() / 2;
            let begin = (begin..text.len()).find(|at| text.is_char_boundary(*at))?;
            Some(cut(&text[begin..])).filter(|line| !line.is_empty())
        })
        .take(count)
        .collect();
    assert_eq!(lines.len(), count, "the corpus has fewer addresses");
    lines
}

/// Lines of many scripts and emoji, each put together by chance.
pub fn of_many_scripts(count: usize) -> Vec<String> {
    let mut chance = Chance(17);
    (0..count)
        .map(|_| {
            let parts: Vec<&str> =
                (0..2 + chance.below(12)).map(|_| PARTS[chance.below(PARTS.len() as u64) as usize]).collect();
            cut(&parts.join(["", " ", "  "][chance.below(3) as usize]))
        })
        .collect()
}

/// The beginning of a text, up to a line's end or the longest line.
fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let end = (0..=line.len().min(LONGEST)).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    line[..end].to_owned()
}
