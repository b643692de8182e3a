//! Numbers in the units in which people think.

use crate::ledger::transition::Millis;

/// `12,345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 file`, `12,345 files`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// `1.2 GB`, in powers of ten.
pub fn bytes(number: u64) -> String {
    scaled(number as f64, &["bytes", "kB", "MB", "GB", "TB", "PB"])
}

/// `12.3k`, for a rate.
pub fn rate(number: f64) -> String {
    scaled(number, &["", "k", "M", "G"]).replace(' ', "")
}

fn scaled(number: f64, units: &[&str]) -> String {
    let mut scaled = number;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or("");
    for next in units {
        if scaled < 999.5 {
            break;
        }
        scaled /= 1000.0;
        unit = next;
    }
    let is_whole = scaled >= 99.95 || unit == "bytes" || scaled.fract() == 0.0;
    if is_whole { format!("{scaled:.0} {unit}") } else { format!("{scaled:.1} {unit}") }
}

/// `45 s`, `3 min 12 s`, `12 min`, `3 h 20 min`, `2 days 4 h`.
pub fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds.div_ceil(1000);
    let (minutes, hours, days) = (seconds.div_ceil(60), seconds / 3600, seconds / 86_400);
    match seconds {
        0..90 => format!("{seconds} s"),
        90..600 => format!("{} min {} s", seconds / 60, seconds % 60),
        600..5_400 => format!("{minutes} min"),
        5_400..172_800 => format!("{hours} h {} min", seconds % 3600 / 60),
        _ => format!("{days} days {} h", seconds % 86_400 / 3600),
    }
}

/// `2026-10-01 12:00:05Z`.
pub fn moment(at: Millis) -> String {
    let at = i64::try_from(at).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    at.map_or_else(|| "?".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// `62 %`, never 100 before it is all.
pub fn percent(done: u64, all: u64) -> String {
    let share = done.saturating_mul(100).checked_div(all).unwrap_or(100).min(100);
    format!("{share} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_as_people_say_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 999, 1_000, 1_234_567, 150_000_000].map(bytes),
            ["0 bytes", "999 bytes", "1 kB", "1.2 MB", "150 MB"]
        );
        assert_eq!([12.0, 12_345.0].map(rate), ["12", "12.3k"]);
        assert_eq!(
            [0, 1, 45_000, 192_000, 720_000, 12_000_000, 187_200_000].map(duration),
            ["0 s", "1 s", "45 s", "3 min 12 s", "12 min", "3 h 20 min", "2 days 4 h"]
        );
        assert_eq!(moment(1_790_812_800_000), "2026-10-01 00:00:00Z");
        assert_eq!([percent(999, 1000), percent(1000, 1000), percent(0, 0)], ["99 %", "100 %", "100 %"]);
    }
}
