//! The program from outside: what it prints, how it exits, what signals do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "../src/fixture.rs"]
mod fixture;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use artifacts::event::{Event, Line};
use artifacts::job::{Piece, Start};
use fixture::Fixture;
use rustix::process::{Pid, Signal, kill_process};

fn trainer() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lrpath-train"));
    command.stdin(Stdio::null());
    command
}

fn train(fixture: &Fixture) -> Output {
    trainer().arg("--job").arg(fixture.write()).output().unwrap()
}

fn events(output: &Output) -> Vec<Event> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str::<Line>(line).unwrap().event).collect()
}

/// Exit code and word of an attempt that failed, whose only event says so.
fn failure(output: &Output) -> (i32, String, String) {
    match &events(output)[..] {
        [Event::Failed { kind, message, .. }] => {
            (output.status.code().unwrap(), kind.clone(), message.clone())
        }
        events => panic!("one `failed` was expected, not {events:?}"),
    }
}

#[test]
fn a_job_is_trained_and_its_lines_keep_the_schema() {
    let fixture = Fixture::new();
    let output = train(&fixture);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let schema = |of: &str| -> serde_json::Value {
        let printed = trainer().args(["schema", of]).output().unwrap();
        serde_json::from_slice(&printed.stdout).unwrap()
    };
    let event = jsonschema::validator_for(&schema("event")).unwrap();
    for line in std::str::from_utf8(&output.stdout).unwrap().lines() {
        let line = serde_json::from_str(line).unwrap();
        assert!(event.is_valid(&line), "{line}");
    }
    let job = jsonschema::validator_for(&schema("job")).unwrap();
    let mut written = serde_json::to_value(&fixture.job).unwrap();
    assert!(job.is_valid(&written));
    written["unknown"] = 1.into();
    assert!(!job.is_valid(&written));
    assert!(matches!(events(&output).last(), Some(Event::Finished { step: 20 })));
}

#[test]
fn failures_have_their_exit_codes_and_words() {
    let of = |change: &dyn Fn(&mut Fixture)| {
        let mut fixture = Fixture::new();
        change(&mut fixture);
        let (code, kind, _) = failure(&train(&fixture));
        (code, kind)
    };
    let write =
        |fixture: &Fixture, name: &str, bytes: &[u8]| fs::write(fixture.path().join(name), bytes).unwrap();
    assert_eq!(of(&|fixture| write(fixture, "rates.f64", &[0; 8])), (65, "data".into()));
    assert_eq!(of(&|fixture| write(fixture, "sequences.bin", &[9; 64])), (65, "data".into()));
    assert_eq!(of(&|fixture| write(fixture, "config.json", b"{}")), (78, "config".into()));
    assert_eq!(of(&|fixture| fixture.job.micro_batch = 3), (78, "config".into()));
    assert_eq!(of(&|fixture| fixture.job.format = 2), (78, "config".into()));
    assert_eq!(of(&|fixture| fixture.job.threads = Some(u32::MAX)), (78, "config".into()));
    assert_eq!(of(&|fixture| fixture.job.model = "gone.json".into()), (66, "no-input".into()));
    assert_eq!(
        of(&|fixture| fixture.job.start = Start::Folder { path: "gone".into() }),
        (66, "no-input".into())
    );
}

/// Every file below a folder and its bytes, the lock apart, in order.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.file_name().unwrap() != "lock" {
            let bytes = fs::read(&path).unwrap();
            files.push((path, bytes));
        }
    }
    files.sort();
    files
}

/// Exit code, word and sentence of a job that is refused before its first step, with no file written or changed.
fn refused(change: impl FnOnce(&mut Fixture)) -> (i32, String, String) {
    let mut fixture = Fixture::new();
    change(&mut fixture);
    fixture.write();
    let before = files(fixture.path());
    let failure = failure(&train(&fixture));
    assert!(files(fixture.path()) == before, "files were written: {failure:?}");
    failure
}

/// Changes keys of the model's config.json.
fn configure(fixture: &Fixture, changes: &[(&str, u64)]) {
    let mut config: serde_json::Value = serde_json::from_str(&fixture::config(false)).unwrap();
    for (key, value) in changes {
        config[key] = (*value).into();
    }
    fs::write(fixture.path().join("config.json"), config.to_string()).unwrap();
}

#[test]
fn a_sequence_longer_than_the_rotary_table_is_refused() {
    let (code, kind, message) = refused(|fixture| configure(fixture, &[("max_position_embeddings", 11)]));
    assert_eq!((code, kind.as_str()), (78, "config"));
    assert!(message.contains("sequence_length is 12") && message.contains("has 11 positions"), "{message}");
}

#[test]
fn sizes_that_contradict_each_other_are_refused() {
    type Change<'a> = &'a dyn Fn(&mut Fixture);
    let cases: [(Change<'_>, &str, &str); 8] = [
        (
            &|fixture| fixture.job.micro_batch = 3,
            "config",
            "micro_batch 3 does not divide sequences_per_step 4",
        ),
        (
            &|fixture| fixture.job.micro_batch = 8,
            "config",
            "micro_batch 8 does not divide sequences_per_step 4",
        ),
        (&|fixture| fixture.job.sequence_length = 0, "config", "`sequence_length` is 0"),
        (&|fixture| fixture.job.sequence_length = 13, "data", "take 80 sequences of 14 tokens"),
        (&|fixture| fixture.job.to = 21, "data", "the job has 21 steps"),
        (
            &|fixture| (fixture.job.to, fixture.job.sequences_per_step) = (1 << 50, 2),
            "config",
            "are 2^53 tokens or more",
        ),
        (
            &|fixture| configure(fixture, &[("num_key_value_heads", 3)]),
            "config",
            "must divide num_attention_heads",
        ),
        (&|fixture| configure(fixture, &[("head_dim", 15)]), "config", "even width of a head"),
    ];
    for (change, word, reason) in cases {
        let (code, kind, message) = refused(change);
        assert_eq!((code, kind.as_str()), (if word == "data" { 65 } else { 78 }, word), "{message}");
        assert!(message.contains(reason), "{message}, not {reason}");
    }
}

#[test]
fn a_batch_that_does_not_fit_into_memory_is_refused_with_the_largest_that_does() {
    // Tens of terabytes, on any machine; one sequence alone is small.
    let (code, kind, message) = refused(|fixture| {
        configure(fixture, &[("intermediate_size", 1 << 16)]);
        (fixture.job.sequences_per_step, fixture.job.micro_batch) = (1 << 20, 1 << 20);
        fixture.job.sequence_length = 64;
    });
    assert_eq!((code, kind.as_str()), (71, "no-memory"));
    assert!(message.starts_with("training with micro_batch 1048576 takes "), "{message}");
    assert!(
        message.contains(" MiB of memory, but ") && message.contains(" MiB are available; "),
        "{message}"
    );
    let largest: u32 = message.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(message.contains("the largest micro_batch that fits is ") && largest.is_power_of_two());
    assert!((2..1 << 20).contains(&largest), "{message}");
}

/// The tokens of the batches that are read ahead fill the memory, whatever goes through the model at once.
#[test]
fn a_step_whose_tokens_do_not_fit_into_memory_is_refused() {
    let (code, kind, message) = refused(|fixture| {
        (fixture.job.sequences_per_step, fixture.job.micro_batch) = (1 << 31, 1);
        fixture.job.sequence_length = 64;
    });
    assert_eq!((code, kind.as_str()), (71, "no-memory"));
    assert!(
        message.contains("no micro_batch fits") && message.contains("fewer sequences_per_step"),
        "{message}"
    );
}

#[test]
fn a_model_that_does_not_fit_into_memory_is_refused_before_it_is_made() {
    let sizes = [("hidden_size", 1 << 18), ("intermediate_size", 1 << 20), ("num_hidden_layers", 100)];
    let (code, kind, message) = refused(|fixture| configure(fixture, &sizes));
    assert_eq!((code, kind.as_str()), (71, "no-memory"));
    assert!(message.contains("no micro_batch fits, even 1 needs "), "{message}");
}

#[test]
fn a_token_outside_the_vocabulary_ends_a_job_with_whole_checkpoints() {
    let mut fixture = Fixture::new();
    // In the ninth step, while the checkpoint of the eighth is being written.
    let stream = fixture.path().join("stream.u32");
    let at = 8 * fixture::PER_STEP * fixture::LENGTH + 3;
    let mut tokens = fixture::tokens(fixture::STEPS as u32 * fixture::PER_STEP * fixture::LENGTH + 1, 1);
    tokens[at as usize] = fixture::VOCABULARY;
    fixture::write_tokens(&stream, &tokens);
    let outside = format!("stream.u32: token {at} is 31, outside the model's vocabulary of 31 tokens");
    let output = train(&fixture);
    let events = events(&output);
    assert_eq!(output.status.code(), Some(65));
    let steps = events.iter().filter(|event| matches!(event, Event::Step { .. })).count();
    assert_eq!(steps, 8);
    // The checkpoint is told, whether it was done before the step failed or after.
    let told = events.iter().filter(|event| matches!(event, Event::Checkpoint { step: 8, .. })).count();
    assert_eq!(told, 1, "{events:?}");
    let Some(Event::Failed { kind, message, .. }) = events.last() else { panic!("{events:?}") };
    assert!(kind == "data" && message.contains(&outside), "{message}");
    let checkpoints: Vec<_> = fs::read_dir(fixture.path().join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let [checkpoint] = &checkpoints[..] else { panic!("{checkpoints:?}") };
    assert!(checkpoint.ends_with("path-switching.main.g1.s8"), "{checkpoint:?}");
    assert!(artifacts::manifest::verify(checkpoint).is_ok());

    // In a held-out block, which is looked at before the first step.
    let (code, kind, message) = refused(|fixture| {
        let mut tokens = fixture::tokens(100, 2);
        tokens[50] = u32::MAX;
        fixture::write_tokens(&fixture.path().join("held_out.u32"), &tokens);
    });
    assert_eq!((code, kind.as_str()), (65, "data"));
    assert!(message.contains("held_out.u32: token 50 is 4294967295, outside"), "{message}");
    fixture.job.mask_documents_at = Some(fixture::VOCABULARY);
    let (code, kind, _) = failure(&train(&fixture));
    assert_eq!((code, kind.as_str()), (78, "config"));
}

#[test]
fn an_evaluation_beyond_the_models_positions_is_refused() {
    let fixture = Fixture::new();
    assert_eq!(train(&fixture).status.code(), Some(0));
    configure(&fixture, &[("max_position_embeddings", 11)]);
    let model = fixture.path().join("checkpoints/path-switching.main.g1.s20");
    let (job, config) = (fixture.path().join("job.json"), fixture.path().join("config.json"));
    let mut command = trainer();
    command.arg("evaluate").arg("--model").arg(&model).arg("--config").arg(config).arg("--job").arg(job);
    let (code, kind, message) = failure(&command.output().unwrap());
    assert_eq!((code, kind.as_str()), (78, "config"));
    assert!(message.contains("has 11 positions"), "{message}");
}

#[test]
fn threads_that_share_a_matrix_product_change_no_bit() {
    // Longer sequences, all at once: products large enough to be shared.
    let mut fixture = Fixture::new();
    let (steps, length) = (4, 60);
    let pieces = (0..steps * u64::from(fixture::PER_STEP))
        .map(|sequence| Piece { file: 0, count: length + 1, first: sequence * u64::from(length) }.to_bytes());
    fs::write(fixture.path().join("sequences.bin"), pieces.collect::<Vec<_>>().concat()).unwrap();
    let rates = fs::read(fixture.path().join("rates.f64")).unwrap();
    fs::write(fixture.path().join("rates.f64"), &rates[..8 * steps as usize]).unwrap();
    fixture.job.to = steps;
    fixture.job.sequence_length = length;
    fixture.job.micro_batch = fixture.job.sequences_per_step;
    let mut digest = |threads| {
        fixture.job.threads = Some(threads);
        fixture.job.path = format!("threads-{threads}");
        assert_eq!(train(&fixture).status.code(), Some(0));
        let folder = fixture.path().join(format!("checkpoints/threads-{threads}.s{steps}"));
        ["model", "optimizer"].map(|name| fs::read(folder.join(format!("{name}.safetensors"))).unwrap())
    };
    let alone = digest(1);
    assert!((2..5).all(|threads| digest(threads) == alone));
}

#[test]
fn a_command_line_that_makes_no_sense_exits_with_64() {
    for arguments in [&["--jbo", "x"][..], &["generate"], &["evaluate", "--model", "x"], &["sing"]] {
        let output = trainer().args(arguments).output().unwrap();
        let (code, kind, message) = failure(&output);
        assert_eq!((code, kind.as_str()), (64, "usage"));
        assert!(message.contains("error: "), "{message}");
    }
    assert_eq!(trainer().arg("--help").output().unwrap().status.code(), Some(0));
    assert_eq!(trainer().arg("--version").output().unwrap().stdout, b"lrpath-train 0.1.0\n");
}

#[test]
fn a_rubbish_job_is_one_failed_event() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.json");
    let attempt = || trainer().arg("--job").arg(&path).output().unwrap();
    assert_eq!(failure(&attempt()).0, 66);
    let good = serde_json::to_string(&Fixture::new().job).unwrap();
    for rubbish in ["", "{", "[]", "null", "\u{0}\u{1}", &good[..good.len() / 2], &good.replace("job", "jub")]
    {
        fs::write(&path, rubbish).unwrap();
        let (code, kind, message) = failure(&attempt());
        assert_eq!((code, kind.as_str()), (65, "data"), "{message}");
        assert!(message.contains("job.json"), "{message}");
    }
}

/// A trainer that runs, and the lines that it has said.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Running {
    /// Starts a job that is far longer than the test.
    fn long(fixture: &mut Fixture) -> Self {
        let steps = 200_000u64;
        fixture.job.to = steps;
        fixture.job.checkpoints.every = None;
        let path = fixture.path();
        let repeated = |name: &str| {
            let bytes = fs::read(path.join(name)).unwrap();
            fs::write(path.join(name), bytes.repeat((steps / fixture::STEPS) as usize)).unwrap();
        };
        repeated("rates.f64");
        repeated("sequences.bin");
        let mut child = trainer().arg("--job").arg(fixture.write()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> Option<Event> {
        let line = self.lines.next()?.unwrap();
        Some(serde_json::from_str::<Line>(&line).unwrap().event)
    }

    fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        std::iter::from_fn(|| self.next()).find(|event| wanted(event)).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

#[test]
fn asked_to_stop_it_saves_says_so_and_exits_with_75() {
    let mut fixture = Fixture::new();
    let mut running = Running::long(&mut fixture);
    running.until(|event| matches!(event, Event::Step { step: 2, .. }));
    running.signal(Signal::TERM);
    let saved = running.until(|event| matches!(event, Event::Checkpoint { .. }));
    let Event::Checkpoint { step, path, digest, .. } = saved else { unreachable!() };
    assert_eq!(running.next(), Some(Event::Stopped { step }));
    assert_eq!(running.next(), None);
    assert_eq!(running.child.wait().unwrap().code(), Some(75));
    let folder = fixture.path().join("checkpoints").join(path);
    assert_eq!(artifacts::manifest::verify(&folder).unwrap(), digest);
}

#[test]
fn asked_to_save_it_goes_on_and_holds_its_lock() {
    let mut fixture = Fixture::new();
    let mut running = Running::long(&mut fixture);
    running.until(|event| matches!(event, Event::Step { .. }));
    running.signal(Signal::USR1);
    let saved = running.until(|event| matches!(event, Event::Checkpoint { .. }));
    let Event::Checkpoint { step, .. } = saved else { unreachable!() };
    running.until(|event| matches!(event, Event::Step { step: now, .. } if *now > step));
    let second = train(&fixture);
    let (code, kind, _) = failure(&second);
    assert_eq!((code, kind.as_str()), (73, "locked"));
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    let third = trainer().arg("--job").arg(fixture.path().join("gone.json")).output().unwrap();
    assert_eq!(failure(&third).0, 66);
}

#[test]
fn what_it_trained_is_evaluated_and_gives_logits() {
    let fixture = Fixture::new();
    let trained = events(&train(&fixture));
    let model = fixture.path().join("checkpoints/path-switching.main.g1.s20");
    let job = fixture.path().join("job.json");
    let output =
        trainer().arg("evaluate").arg("--model").arg(&model).arg("--job").arg(&job).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let losses = |events: &[Event]| {
        let of = |event: &Event| match event {
            Event::Evaluation { step, increment, loss, .. } => Some((*step, *increment, loss.to_bits())),
            _ => None,
        };
        events.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(losses(&events(&output)), losses(&trained));
    assert_eq!(losses(&trained).len(), 2);

    let tokens = fixture.path().join("one.u32");
    fixture::write_tokens(&tokens, &fixture::tokens(30, 3));
    let out = fixture.path().join("logits.safetensors");
    let logits = |tokens: &Path| {
        let mut command = trainer();
        command
            .arg("logits")
            .arg("--model")
            .arg(&model)
            .arg("--config")
            .arg(fixture.path().join("config.json"));
        command.arg("--tokens").arg(tokens).arg("--out").arg(&out).output().unwrap()
    };
    assert_eq!(logits(&tokens).status.code(), Some(0));
    let bytes = fs::read(&out).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("logits").unwrap().shape(), [30, fixture::VOCABULARY as usize]);
    fixture::write_tokens(&tokens, &[1, 31]);
    assert_eq!(failure(&logits(&tokens)).0, 65);
}

/// A tokenizer of 31 letters, without merges.
fn tokenizer() -> String {
    let letters = ('a'..='z').chain('A'..='E').enumerate();
    let vocabulary: serde_json::Map<_, _> =
        letters.map(|(token, letter)| (letter.to_string(), token.into())).collect();
    serde_json::json!({
        "version": "1.0",
        "added_tokens": [],
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    })
    .to_string()
}

#[test]
fn text_is_generated_beyond_the_models_positions_and_the_same_for_a_seed() {
    let fixture = Fixture::new();
    assert_eq!(train(&fixture).status.code(), Some(0));
    let model = fixture.path().join("checkpoints/path-switching.main.g1.s20");
    let config = fixture::config(false).replace("\"eos_token_id\":0", "\"eos_token_id\":null");
    fs::write(fixture.path().join("config.json"), config).unwrap();
    fs::write(fixture.path().join("tokenizer.json"), tokenizer()).unwrap();
    let generate = |arguments: &[&str]| {
        let mut command = trainer();
        command.arg("generate").arg("--model").arg(&model).args(arguments);
        for name in ["config", "tokenizer"] {
            command.arg(format!("--{name}")).arg(fixture.path().join(format!("{name}.json")));
        }
        command.output().unwrap()
    };
    let text = |arguments: &[&str]| {
        let output = generate(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let one = text(&["--prompt", "abc", "--tokens", "150", "--seed", "3"]);
    assert!(one.starts_with("abc") && one.ends_with('\n') && one.len() == 154, "{one}");
    assert_eq!(text(&["--prompt", "abc", "--tokens", "150", "--seed", "3"]), one);
    assert_ne!(text(&["--prompt", "abc", "--tokens", "150", "--seed", "4"]), one);
    assert_eq!(text(&["--tokens", "5", "--temperature", "0"]).len(), 6);
    assert_eq!(text(&["--tokens", "5", "--top-k", "1"]), text(&["--tokens", "5", "--temperature", "0"]));
    assert_eq!(failure(&generate(&["--temperature", "-1"])).0, 64);
    fs::remove_file(fixture.path().join("tokenizer.json")).unwrap();
    assert_eq!(failure(&generate(&[])).0, 66);
}
