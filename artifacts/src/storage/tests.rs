use std::collections::BTreeSet;

use super::crash::CrashDisk;
use super::*;

const LONGEST: u64 = 1 << 20;

fn root() -> &'static Path {
    Path::new("/")
}

/// What each image holds under a name; `None` where nothing has it.
fn found(images: &[CrashDisk], path: &str) -> BTreeSet<Option<Vec<u8>>> {
    images.iter().map(|image| image.read(Path::new(path), LONGEST).ok()).collect()
}

fn some(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(bytes.to_vec())
}

/// The same little life on any storage.
fn a_file_lives(storage: &dyn Storage, folder: &Path) {
    let (path, other) = (folder.join("a"), folder.join("b"));
    let mut file = storage.create(&path).unwrap();
    file.append(b"hello ").unwrap();
    file.append(b"world").unwrap();
    file.truncate(8).unwrap();
    file.append(b"!").unwrap();
    file.sync_data().unwrap();
    assert_eq!(file.length(), 9);
    assert!(storage.create(&path).err().unwrap().is_taken());
    assert!(storage.append(&other).err().unwrap().is_missing());
    let mut again = storage.append(&path).unwrap();
    assert_eq!(again.length(), 9);
    again.append(b"?").unwrap();
    assert_eq!(storage.read(&path, 10).unwrap(), b"hello wo!?");
    assert!(storage.read(&path, 9).unwrap_err().to_string().contains("longer than 9 bytes"));
    storage.rename(&path, &other).unwrap();
    assert_eq!(storage.kind(&path).unwrap(), None);
    let entry = Entry { name: "b".into(), kind: Kind::File };
    assert_eq!(storage.list(folder).unwrap(), [entry]);
    storage.create_folder(&path).unwrap();
    assert_eq!(storage.kind(&path).unwrap(), Some(Kind::Folder));
    replace(storage, &path.join("c"), b"old").unwrap();
    replace(storage, &path.join("c"), b"new").unwrap();
    assert_eq!(storage.read(&path.join("c"), LONGEST).unwrap(), b"new");
    assert!(storage.remove_folder(&path).unwrap_err().is_taken());
    remove_tree(storage, &path).unwrap();
    storage.remove_file(&other).unwrap();
    storage.sync_folder(folder).unwrap();
    assert_eq!(storage.list(folder).unwrap(), []);
}

#[test]
fn real_files_and_the_forgetting_disk_behave_alike() {
    let folder = tempfile::tempdir().unwrap();
    a_file_lives(&Disk, folder.path());
    a_file_lives(&CrashDisk::new(), root());
}

#[test]
fn what_is_not_synced_may_be_lost_and_what_is_synced_may_not() {
    let disk = CrashDisk::new();
    let path = Path::new("/file");
    let mut file = disk.create(path).unwrap();
    file.append(b"abcd").unwrap();
    let expected = [None, some(b""), some(b"ab"), some(b"abcd"), some(&[0; 4])];
    assert_eq!(found(&disk.crash_images(), "/file"), expected.into());
    file.sync_data().unwrap();
    assert_eq!(found(&disk.crash_images(), "/file"), [None, some(b"abcd")].into());
    disk.sync_folder(root()).unwrap();
    assert_eq!(found(&disk.crash_images(), "/file"), [some(b"abcd")].into());
    file.append(b"ef").unwrap();
    file.truncate(5).unwrap();
    let expected = [some(b"abcd"), some(b"abcde"), some(b"abcd\0")];
    assert_eq!(found(&disk.crash_images(), "/file"), expected.into());
}

#[test]
fn a_rename_without_a_sync_of_the_file_may_leave_an_empty_one() {
    let disk = CrashDisk::new();
    let mut file = disk.create(Path::new("/new")).unwrap();
    file.append(b"new").unwrap();
    disk.rename(Path::new("/new"), Path::new("/file")).unwrap();
    disk.sync_folder(root()).unwrap();
    assert!(found(&disk.crash_images(), "/file").contains(&some(b"")));
}

#[test]
fn an_image_is_durable_and_forgets_in_its_turn() {
    let disk = CrashDisk::new();
    replace(&disk, Path::new("/kept"), b"kept").unwrap();
    let image = disk.crash_images().pop().unwrap();
    assert_eq!(image.moments(), 0);
    drop(image.create(Path::new("/new")).unwrap());
    let images = image.crash_images();
    assert_eq!(found(&images, "/kept"), [some(b"kept")].into());
    assert_eq!(found(&images, "/new"), [None, some(b"")].into());
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one_at_every_moment() {
    let disk = CrashDisk::new();
    replace(&disk, Path::new("/file"), b"old").unwrap();
    let before = disk.moments();
    assert_eq!(found(&disk.crash_images(), "/file"), [some(b"old")].into());
    replace(&disk, Path::new("/file"), b"new").unwrap();
    let mut seen = BTreeSet::new();
    for moment in before..=disk.moments() {
        let images = disk.crash_images_at(moment);
        seen.extend(found(&images, "/file"));
        for image in images {
            sweep(&image, root()).unwrap();
            assert_eq!(image.list(root()).unwrap().len(), 1);
        }
    }
    assert_eq!(seen, [some(b"old"), some(b"new")].into());
    assert_eq!(found(&disk.crash_images(), "/file"), [some(b"new")].into());
}

#[test]
fn a_published_folder_is_whole_or_not_there_at_every_moment() {
    let disk = CrashDisk::new();
    let (published, whole) = (Path::new("/v1"), [("/v1/a", b"aaaa"), ("/v1/sub/b", b"bbbb")]);
    let temporary = temporary_folder(&disk, published).unwrap();
    disk.create(&temporary.join("a")).unwrap().append(b"aaaa").unwrap();
    disk.create_folder(&temporary.join("sub")).unwrap();
    disk.create(&temporary.join("sub/b")).unwrap().append(b"bbbb").unwrap();
    publish_folder(&disk, &temporary, published).unwrap();
    let mut outcomes = BTreeSet::new();
    for moment in 0..=disk.moments() {
        for image in disk.crash_images_at(moment) {
            let there = image.kind(published).unwrap().is_some();
            outcomes.insert(there);
            for (path, bytes) in whole {
                let expected = if there { some(bytes) } else { None };
                assert_eq!(image.read(Path::new(path), LONGEST).ok(), expected, "moment {moment}");
            }
        }
    }
    assert_eq!(outcomes, [false, true].into());
    assert!(disk.crash_images().iter().all(|image| image.kind(published).unwrap().is_some()));
    let second = temporary_folder(&disk, published).unwrap();
    assert!(publish_folder(&disk, &second, published).unwrap_err().is_taken());
}

#[test]
fn a_full_disk_leaves_the_old_file_and_goes_on_when_there_is_room() {
    for room in 0..2 {
        let disk = CrashDisk::new();
        replace(&disk, Path::new("/file"), b"old").unwrap();
        disk.full_after(room);
        assert!(replace(&disk, Path::new("/file"), b"newer").unwrap_err().is_full());
        assert_eq!(disk.files(), [("/file".into(), b"old".to_vec())].into());
        disk.make_room();
        replace(&disk, Path::new("/file"), b"newer").unwrap();
        assert_eq!(disk.files(), [("/file".into(), b"newer".to_vec())].into());
    }
}

#[test]
fn a_file_that_failed_once_refuses_further_work() {
    let disk = CrashDisk::new();
    let mut file = disk.create(Path::new("/file")).unwrap();
    disk.full_after(0);
    assert!(file.append(b"abcd").unwrap_err().is_full());
    disk.make_room();
    assert!(file.append(b"ef").is_err());
    assert!(file.sync_data().is_err());
    assert_eq!(disk.files()[Path::new("/file")], b"ab");

    if Path::new("/dev/full").exists() {
        let mut full = Disk.append(Path::new("/dev/full")).unwrap();
        assert!(full.append(b"x").unwrap_err().is_full());
        assert!(full.append(b"").unwrap_err().to_string().contains("earlier write"));
    }
}

#[test]
fn left_over_temporary_names_are_passed_over_and_swept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(folder.path().join(".tmp-file-0"), b"left over").unwrap();
    std::fs::create_dir(folder.path().join(".tmp-other")).unwrap();
    replace(&Disk, &path, b"bytes").unwrap();
    assert_eq!(sweep(&Disk, folder.path()).unwrap(), 2);
    assert_eq!(std::fs::read(&path).unwrap(), b"bytes");
    assert_eq!(Disk.list(folder.path()).unwrap().len(), 1);
}

#[test]
fn an_output_is_buffered_and_hashed() {
    let disk = CrashDisk::new();
    let mut output = Output::create(&disk, Path::new("/file")).unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 255) as u8).collect();
    bytes.chunks(10_007).for_each(|chunk| output.write(chunk).unwrap());
    let written = output.finish().unwrap();
    assert_eq!(written, Written { size: 3_000_000, digest: crate::Digest::of(&bytes) });
    assert_eq!(disk.files()[Path::new("/file")], bytes);
    assert!(disk.moments() < 10);
}
