//! Checkpoints: there and back, and what is left when the disk does not play along.

use artifacts::job::{self, Precision};
use artifacts::storage::crash::CrashDisk;
use candle_core::DType;

use super::*;
use crate::fixture;

fn config() -> Config {
    Config::parse(Path::new("config.json"), &fixture::config(false)).unwrap()
}

fn snapshot(seed: u64) -> Snapshot {
    let weights = Weights::new(&config(), seed, DType::F32, &Device::Cpu).unwrap();
    let settings = job::Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 };
    let optimizer = Optimizer::new(settings, &weights).unwrap();
    let state = State {
        format: checkpoint::FORMAT,
        path: "scratch.v2".to_owned(),
        step: 40,
        precision: Precision::F32,
        kernels: "test".to_owned(),
        micro_batch: 2,
        skipped: vec![3, 5],
        norms: vec![0.5, 1.0 / 3.0],
    };
    Snapshot::take(&weights, &optimizer, state).unwrap()
}

#[test]
fn a_checkpoint_loads_as_it_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let saved = snapshot(1).write(&storage::Disk, folder.path()).unwrap();
    assert_eq!((saved.name.as_str(), saved.step), ("scratch.v2.s40", 40));
    let path = folder.path().join(&saved.name);
    let on_disk = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    assert_eq!(on_disk.sum::<u64>(), saved.bytes);
    let loaded = load(&path, saved.digest, &config(), &Device::Cpu).unwrap();
    assert_eq!((loaded.state.skipped.clone(), loaded.updates()), (vec![3, 5], 38));
    let expected = Weights::new(&config(), 1, DType::F32, &Device::Cpu).unwrap();
    for ((name, found), (_, expected)) in loaded.weights.iter().zip(expected.iter()) {
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(found), values(expected), "{name}");
        assert_eq!(values(&loaded.moments[name].exp_avg), vec![0.0; found.elem_count()]);
    }
    assert_eq!(step_of(&path).unwrap(), Some(40));
    assert_eq!(step_of(folder.path()).unwrap(), None);
}

#[test]
fn another_checkpoint_than_the_one_asked_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let saved = snapshot(1).write(&storage::Disk, folder.path()).unwrap();
    let other = Digest::of(b"other");
    let refused = load(&folder.path().join(&saved.name), other, &config(), &Device::Cpu);
    assert!(matches!(refused, Err(StateError::Digest { expected, .. }) if expected == other));
}

#[test]
fn a_power_cut_leaves_a_whole_checkpoint_or_none() {
    let disk = CrashDisk::new();
    let folder = Path::new("/");
    let saved = snapshot(1).write(&disk, folder).unwrap();
    let mut whole = 0;
    for moment in 0..=disk.moments() {
        for image in disk.crash_images_at(moment) {
            let real = tempfile::tempdir().unwrap();
            image.write_to(real.path()).unwrap();
            let path = real.path().join(&saved.name);
            if path.exists() {
                assert_eq!(manifest::verify(&path).unwrap(), saved.digest);
                whole += 1;
            }
        }
    }
    assert!(whole > 0);
    for image in disk.crash_images() {
        assert_eq!(image.files().len(), 4);
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_under_the_final_name() {
    let whole = CrashDisk::new();
    snapshot(1).write(&whole, Path::new("/")).unwrap();
    for operations in 0..whole.moments() as u64 {
        let disk = CrashDisk::new();
        disk.full_after(operations);
        if let Err(error) = snapshot(1).write(&disk, Path::new("/")) {
            assert!(matches!(&error, StateError::Storage(error) if error.is_full()), "{error}");
            disk.make_room();
            assert!(disk.files().keys().all(|path| !path.starts_with("/scratch.v2.s40")));
            assert!(snapshot(1).write(&disk, Path::new("/")).is_ok());
        }
    }
}

#[test]
fn the_left_overs_of_a_deletion_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let saved = snapshot(1).write(&storage::Disk, folder.path()).unwrap();
    std::fs::remove_file(folder.path().join(&saved.name).join(manifest::NAME)).unwrap();
    assert_eq!(snapshot(1).write(&storage::Disk, folder.path()).unwrap(), saved);
}

#[test]
fn a_saver_gives_each_checkpoint_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut saver = Saver::new(Arc::new(storage::Disk), folder.path().to_owned(), Patience::default());
    assert_eq!(saver.finish().unwrap(), None);
    saver.submit(snapshot(1)).unwrap();
    let Written { saved, seconds, stalled_seconds } = saver.finish().unwrap().unwrap();
    assert_eq!(saver.poll().unwrap(), None);
    assert!(folder.path().join(saved.name).join(manifest::NAME).exists());
    assert!(0.0 < stalled_seconds && stalled_seconds <= seconds + 0.1, "{stalled_seconds} of {seconds}");
}

#[test]
fn a_saver_that_is_dropped_leaves_a_whole_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut saver = Saver::new(Arc::new(storage::Disk), folder.path().to_owned(), Patience::default());
    saver.submit(snapshot(1)).unwrap();
    drop(saver);
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["scratch.v2.s40"]);
    assert!(manifest::verify(&folder.path().join("scratch.v2.s40")).is_ok());
}
