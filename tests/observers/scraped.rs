//! Prometheus reads the metrics, and promtool finds nothing to complain about in them or in the rules.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::watched::{Watched, free_address};

fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: run `make observers`");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), said)
}

fn get(url: &str) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "10", url])
        .output()
        .unwrap();
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating").join(name)
}

/// A Prometheus of our own, on the loopback; it ends with the test.
struct Prometheus {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn new(scraped: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let config = folder.path().join("prometheus.yml");
        let rules = docs("alerts.yml").canonicalize().unwrap();
        let text = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 500ms}}\nrule_files: [{rules:?}]\n\
             scrape_configs: [{{job_name: lrpathd, static_configs: [{{targets: [{scraped:?}]}}]}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus: run `make observers`");
        Self { child, address, _folder: folder }
    }

    fn query(&self, query: &str) -> Value {
        let url = format!("http://{}/api/v1/query", self.address);
        let output = Command::new("curl")
            .args(["--silent", "--max-time", "10", "--data-urlencode", &format!("query={query}"), &url])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// The only value of a query, as soon as there is one.
    fn value(&self, query: &str) -> f64 {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = self.query(query);
            if let Some(value) = answer["data"]["result"][0]["value"][1].as_str() {
                return value.parse().unwrap();
            }
            assert!(Instant::now() < deadline, "{query}: {answer}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn prometheus_reads_what_the_daemon_counts() {
    let watched = Watched::new("");
    let text = get(&format!("http://{}/metrics", watched.address));
    assert_eq!(promtool(&["check", "metrics"], &text), (true, String::new()), "{text}");

    let prometheus = Prometheus::new(&watched.address);
    assert_eq!(prometheus.value("up{job=\"lrpathd\"}"), 1.0);
    let status = watched.state.ask(&["status"]);
    let steps = &status["paradigms"]["path-switching"]["steps"];
    for (query, expected) in [
        ("lrpath_versions{state=\"released\"}", 2.0),
        ("lrpath_shards{state=\"accepted\"}", 3.0),
        ("lrpath_files_total{outcome=\"rejected\"}", 1.0),
        ("lrpath_files_total{outcome=\"duplicate\"}", 1.0),
        ("lrpath_device_memory_used_bytes{index=\"1\"}", 3e9),
        ("lrpath_device_utilisation_ratio", 0.87),
        ("lrpath_versions_released_total", 2.0),
        ("lrpath_steps{kind=\"executed\"}", steps["executed"].as_f64().unwrap()),
        ("lrpath_checkpoint_seconds_count > 1 and lrpath_checkpoint_seconds_sum > 0", f64::NAN),
        ("process_resident_memory_bytes", f64::NAN),
        ("count(ALERTS{alertstate=\"firing\"}) or vector(0)", 0.0),
    ] {
        let value = prometheus.value(query);
        assert!(expected.is_nan() || value == expected, "{query}: {value}");
    }
    watched.daemon.stop();
}

#[test]
fn the_alert_rules_are_sound_and_do_what_they_say() {
    let rules = docs("alerts.yml");
    let (is_sound, said) =
        promtool(&["check", "rules", "--lint=all", "--lint-fatal", rules.to_str().unwrap()], "");
    assert!(is_sound, "{said}");
    let tests = docs("alerts.test.yml");
    let (holds, said) = promtool(&["test", "rules", tests.to_str().unwrap()], "");
    assert!(holds, "{said}");
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_there_are_and_each_alert_is_explained() {
    let watched = Watched::new("");
    let text = get(&format!("http://{}/metrics", watched.address));
    let page = std::fs::read_to_string(docs("../operating.md")).unwrap();
    let known = |name: &str| {
        // No job runs here: of those the page must know.
        let of_job = name.starts_with("lrpath_job_") && page.contains(&format!("`{name}`"));
        of_job || text.lines().any(|line| line.split(['{', ' ']).next() == Some(name))
    };
    let rules = std::fs::read_to_string(docs("alerts.yml")).unwrap();
    let dashboard = std::fs::read_to_string(docs("dashboard.json")).unwrap();
    serde_json::from_str::<Value>(&dashboard).expect("the dashboard is JSON");
    let mut asked = 0;
    for name in format!("{rules}\n{dashboard}")
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("lrpath_") || word.starts_with("process_"))
    {
        asked += 1;
        assert!(known(name), "{name} is asked for, and is no metric");
    }
    assert!(asked > 40, "{asked}");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(page.contains(&format!("`{alert}`")), "{alert} is not explained in docs/operating.md");
    }
    // Each metric is explained too.
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(page.contains(&format!("`{name}`")), "{name} is not explained in docs/operating.md");
    }
    watched.daemon.stop();
}
