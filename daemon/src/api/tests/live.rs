use std::time::Duration;

use tokio::io::BufReader;
use tokio::io::{AsyncBufReadExt, Lines};
use tokio::time::timeout;

use super::*;

/// Somebody who keeps looking.
struct Onlooker(Lines<BufReader<UnixStream>>);

impl Onlooker {
    async fn new(served: &Served) -> Self {
        let mut stream = UnixStream::connect(served.folder.path().join("control.sock")).await.unwrap();
        stream.write_all(b"GET /v1/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        Self(BufReader::new(stream).lines())
    }

    /// The next line that begins so.
    async fn line(&mut self, beginning: &str) -> String {
        let next = async {
            loop {
                let line = self.0.next_line().await.unwrap().expect("it goes on");
                if let Some(rest) = line.strip_prefix(beginning) {
                    return rest.to_owned();
                }
            }
        };
        timeout(Duration::from_secs(20), next).await.expect("it is told")
    }

    async fn status(&mut self) -> Value {
        assert_eq!(self.line("event: ").await, "status");
        serde_json::from_str(&self.line("data: ").await).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_keeps_looking_is_told_of_each_change_and_of_nothing_twice() {
    let mut world = World::new(&[PathSwitching]);
    let served = Served::new(&world);
    let mut onlooker = Onlooker::new(&served).await;
    assert_eq!(onlooker.line("content-type: ").await, "text/event-stream");
    let first = onlooker.status().await;
    assert_eq!(first["doing"], "waits for shards");

    world.commit(Transition::Paused);
    assert_eq!(onlooker.status().await["paused"], true);
    world.commit(Transition::Resumed);
    assert_eq!(onlooker.status().await["paused"], false);

    // A trainer's steps are in no journal, and are told all the same.
    let job = world.start(world.main(), None, 1000, None);
    let started = onlooker.status().await;
    assert_eq!(started["jobs"][0]["job"], job);
    for step in [10, 20] {
        let live = Progress { attempt: 1, step, steps_done: step, loss: Some(3.0), ..Progress::default() };
        world.live.progress.lock().unwrap().insert(job, live);
        assert_eq!(onlooker.status().await["jobs"][0]["step"], step);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_only_so_many_places() {
    let served = Served::new(&World::new(&[PathSwitching]));
    let mut seated = Vec::new();
    for _ in 0..32 {
        let mut onlooker = Onlooker::new(&served).await;
        onlooker.status().await;
        seated.push(onlooker);
    }
    let (code, refused) = served.ask("GET", "/v1/live", "").await;
    assert_eq!((code, &refused["code"]), (503, &json!("too-many")));
    seated.clear();
    // Who has gone is noticed with the next word.
    served.ask("POST", "/v1/pause", "").await;
    timeout(Duration::from_secs(20), async {
        while served.send("HEAD /v1/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the places are free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_curve_is_read_from_all_that_its_attempts_have_said() {
    let mut world = World::new(&[PathSwitching]);
    let job = world.start(world.main(), None, 1000, None);
    world.end(job, 1, Outcome::Crashed { message: "signal 9".into() }, 2);
    world.attempt(job, 2, world.main(), None, 1000, None);
    let served = Served::new(&world);
    for (attempt, steps) in [(1, 0..2u64), (2, 1..4)] {
        let folder = served.folder.path().join(format!("jobs/{job}-{attempt}"));
        std::fs::create_dir_all(&folder).unwrap();
        let line = |step: u64| {
            let loss = 4.0 - step as f64 / 2.0;
            json!({"time": 1.0, "event": "step", "step": step, "sequences": [step, step + 1], "batch": "0", "loss": loss,
                   "learning_rate": 0.5, "grad_norm": 1.0, "tokens": 1, "tokens_per_second": 1.0})
        };
        let lines: String = steps.map(|step| format!("{}\n", line(step))).collect();
        std::fs::write(folder.join("events.jsonl"), lines).unwrap();
    }
    let (code, curve) = served.ask("GET", &format!("/v1/jobs/{job}/curve"), "").await;
    assert_eq!(code, 200);
    let point = |step: f64, loss: f64| json!({"step": step, "loss": loss, "learning_rate": 0.5});
    let points = [point(0.0, 4.0), point(1.0, 3.5), point(2.0, 3.0), point(3.0, 2.5)];
    assert_eq!(curve, json!({"job": job, "points": points}));
    assert_eq!(served.ask("GET", "/v1/jobs/99/curve", "").await.0, 404);
    assert_eq!(served.ask("GET", "/v1/jobs/../curve", "").await.0, 400);
}
