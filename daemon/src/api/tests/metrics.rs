use super::*;
use crate::api::fixture::two_devices;
use crate::ledger::transition::Took;

/// A state in which everything that is counted has happened.
fn eventful() -> World {
    let mut world = World::new(&[PathSwitching]);
    world.accept("a.txt", 40_000);
    world.cut(1000, "january");
    world.make(PathSwitching, 1);
    let main = world.main();
    let digest = artifacts::Digest::of(b"again");
    let file = crate::ledger::transition::FileFacts { bytes: 3, inode: 1, mtime: 1 };
    world.commit(Transition::ShardDuplicate {
        digest: artifacts::Digest::of(b"a.txt"),
        name: "b.txt".into(),
        file,
    });
    let (name, reason) = ("c.txt".to_owned(), "line 1: broken UTF-8".to_owned());
    world.commit(Transition::ShardRejected { digest: None, name, bytes: 7, reason });
    let source = CutSource::Command;
    let cut = world.commit(Transition::CutRequested { name: None, source, waits_for: Vec::new() });
    world.commit(Transition::CutRefused { cut, reason: "no whole step".to_owned() });
    let job = world.start(main, None, 3000, None);
    let checkpoint = CheckpointKey { path: main, step: 2000 };
    let took = Some(Took { seconds: 3.0, stalled: 0.25 });
    world.commit(Transition::CheckpointSaved { checkpoint, digest, bytes: 9, job: Some(job), took });
    world.commit(Transition::CheckpointSetAside { checkpoint, reason: "a bit is wrong".to_owned() });
    world.end(job, 1, Outcome::Crashed { message: "signal 9".to_owned() }, 2100);
    world.commit(Transition::PathFailed { path: main, reason: "signal 9".to_owned() });
    world.commit(Transition::Paused);
    world
}

async fn metrics(served: &Served, accept: &str) -> String {
    let request =
        format!("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept: {accept}\r\n\r\n");
    let (status, text) = served.send(&request).await;
    assert_eq!(status, 200);
    text
}

/// Without what hangs on the machine.
fn steady(text: &str) -> String {
    let is_steady = |line: &&str| {
        !["process_", "lrpath_disk_free"]
            .iter()
            .any(|name| line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").starts_with(name))
    };
    let mut lines: Vec<&str> = text.lines().filter(is_steady).collect();
    // The samples of a metric come in any order.
    for samples in lines.split_mut(|line| line.starts_with('#')) {
        samples.sort_unstable();
    }
    lines.into_iter().filter(|line| !line.contains("_bucket")).map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_happened_is_counted_and_what_is_so_is_told() {
    let world = eventful();
    let served = Served::new(&world);
    let plain = metrics(&served, "text/plain").await;
    insta::assert_snapshot!(steady(&plain));
    assert!(
        plain.contains("\nprocess_resident_memory_bytes ") && plain.contains("\nlrpath_disk_free_bytes ")
    );
    let open = metrics(&served, "application/openmetrics-text;version=1.0.0").await;
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE lrpath_files counter\n"), "{open}");
    assert!(plain.contains("# TYPE lrpath_files_total counter\n") && !plain.contains("# EOF"));
    let samples = |text: &str| {
        let lines = steady(text);
        lines.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(samples(&plain), samples(&open), "both formats say the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_over_is_told_no_more() {
    let mut world = World::new(&[PathSwitching]);
    let job = world.start(world.main(), None, 1000, None);
    let live = Progress { attempt: 1, step: 300, steps_done: 300, loss: Some(2.5), ..Progress::default() };
    world.live.progress.lock().unwrap().insert(job, live);
    let served = Served::new(&world);
    let text = metrics(&served, "").await;
    let labels = "{path=\"path-switching.main.g1\",slot=\"cpu\"}";
    for line in [format!("lrpath_job_loss{labels} 2.5\n"), format!("lrpath_job_steps_left{labels} 700.0\n")] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    world.end(job, 1, Outcome::Stopped, 300);
    assert!(!metrics(&served, "").await.contains(labels));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_gpu_is_told_what_its_driver_tells() {
    let mut world = World::new(&[PathSwitching]);
    world.devices = two_devices();
    let text = metrics(&Served::new(&world), "").await;
    let of = |name: &str| text.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
    let labels = "{index=\"0\",name=\"NVIDIA H200\",uuid=\"GPU-7d1c3e52-0d1f-4b6e-9a0f-5a2f6a5b1c11\"}";
    for (name, value) in [
        ("lrpath_device_memory_bytes", "150754820096.0"),
        ("lrpath_device_memory_used_bytes", "12345678901.0"),
        ("lrpath_device_utilisation_ratio", "0.87"),
    ] {
        assert_eq!(of(name), [format!("{name}{labels} {value}")], "what is not known has no sample");
    }
}
