//! What people see of the demo.

use crate::ERAS;

/// A row of a table that begins with a name: its numbers.
fn row(text: &str, name: &str) -> Vec<f64> {
    let numbers = |line: &str| -> Option<Vec<f64>> {
        let fields = line.strip_prefix(name)?.strip_prefix("  ")?.split_whitespace();
        fields.map(|field| field.replace(',', "").parse().ok()).collect()
    };
    text.lines().find_map(numbers).unwrap_or_else(|| panic!("no row `{name}` in\n{text}"))
}

/// The part of a text that follows a line.
fn after<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) =
        text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no `{heading}` in\n{text}"));
    rest
}

/// The tree, then the steps, then the perplexities, then a text of the last version.
pub fn check_report(printed: &str, steps: u64, increment: u64) {
    let tree = printed.split_once("\n\n").unwrap().0;
    for version in 1..=ERAS as u64 {
        let (branch, end) = (increment * 6 / 10, increment * version);
        let line = format!("├─●{:>6} ──{branch:>6} steps ─▶{end:>6}  v{version}  released", end - branch);
        assert!(tree.contains(&line), "no `{line}` in\n{printed}");
    }
    assert!(tree.ends_with("  v4  released, latest  releases/v4"), "{tree}");

    let table = after(printed, "Steps, counted from the trainers' events");
    let counted = |name: &str| row(table, name)[0];
    assert_eq!(counted("trained"), steps as f64);
    assert_eq!(counted("from scratch it would be"), (10 * increment) as f64);
    assert_eq!(counted("ratio"), 0.58);
    let branches: f64 = (1..=ERAS).map(|version| counted(&format!("branch of v{version}"))).sum();
    assert_eq!(counted("main path") + branches, steps as f64);

    let table = after(table, "Held-out perplexity of each version on each era");
    let (first, last) = (row(table, "v1"), row(table, "v4"));
    assert_eq!((first.len(), last.len()), (ERAS, ERAS));
    for era in 1..ERAS {
        assert!(last[era] < first[era], "v4 is better than v1 on era {}: {table}", era + 1);
    }

    let (sample, took) = after(table, "v4 writes").split_once("\nAll of it took ").unwrap();
    assert!(sample.split_whitespace().count() > 10, "{sample}");
    assert!(
        took.split_once(".\n").is_some_and(|(took, _)| took.contains(" min ") || took.ends_with(" s")),
        "{took}"
    );
}

/// A line now and then with the steps, the time left, what is done and the era; each version when it is published.
pub fn check_progress(progress: &str, steps: u64) {
    let (mut done, mut eras, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for line in progress.lines() {
        let Some((count, rest)) = line.split_once(&format!("/{steps} steps, ")) else { continue };
        done.push(count.parse::<u64>().expect(line));
        if let Some((time, _)) = rest.split_once(" left, ") {
            let (minutes, seconds) = time.split_once(':').expect(line);
            left.push(60 * minutes.parse::<u64>().expect(line) + seconds.parse::<u64>().expect(line));
        }
        let (doing, era) = rest.split_once(" (data up to era ").expect(line);
        assert!(doing.split_whitespace().count() > 1, "{line}");
        eras.push(era.strip_suffix(" of 4)").expect(line).parse::<usize>().expect(line));
    }
    assert!(done.is_sorted() && eras.is_sorted(), "{progress}");
    assert!(eras.iter().all(|era| (1..=ERAS).contains(era)) && eras.last() == Some(&ERAS), "{progress}");
    // All but the first few lines can tell it, and it comes to an end.
    assert!(!left.is_empty() && left.len() + 2 >= done.len() && left.last() <= left.first(), "{progress}");

    let published: Vec<&str> =
        progress.lines().filter_map(|line| line.strip_suffix(" is published")).collect();
    assert_eq!(published, ["v1", "v2", "v3", "v4"]);
}
