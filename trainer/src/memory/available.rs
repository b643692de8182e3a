//! How much memory this process can still take.
//!
//! The machine's free memory is one bound, the control groups that the process is in are others: in a container or under
//! a service manager a group's limit is often far below what the machine has. What the kernel can take back without
//! harm, above all cached files, counts as free in both.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Bytes that this process can take before the kernel ends it, as far as Linux says; `None` where it says nothing.
pub fn available() -> Option<u64> {
    System { proc: PathBuf::from("/proc"), groups: PathBuf::from("/sys/fs/cgroup") }.available()
}

/// Where the kernel says what there is.
struct System {
    /// The file system of processes.
    proc: PathBuf,
    /// The hierarchy of control groups, version 2.
    groups: PathBuf,
}

impl System {
    fn available(&self) -> Option<u64> {
        self.of_machine().into_iter().chain(self.of_groups()).min()
    }

    /// What the machine has, without swapping.
    fn of_machine(&self) -> Option<u64> {
        let text = fs::read_to_string(self.proc.join("meminfo")).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    }

    /// What each group leaves, from the one that this process is in up to the root.
    fn of_groups(&self) -> Vec<u64> {
        let groups = fs::read_to_string(self.proc.join("self/cgroup")).unwrap_or_default();
        let Some(path) = groups.lines().find_map(|line| line.strip_prefix("0::")) else { return Vec::new() };
        let mut folder = self.groups.clone();
        let mut rooms = Vec::from_iter(room(&folder));
        for component in Path::new(path).components() {
            match component {
                Component::Normal(name) => {
                    folder.push(name);
                    rooms.extend(room(&folder));
                }
                // A group outside of what this process sees: there is nothing to read below.
                Component::ParentDir => break,
                _ => {}
            }
        }
        rooms
    }
}

/// What a group leaves of its limit, where it has one.
fn room(group: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let limit: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let stat = read("memory.stat").unwrap_or_default();
    let reclaimable: u64 = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(key, _)| ["active_file", "inactive_file", "slab_reclaimable"].contains(key))
        .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
        .fold(0, u64::saturating_add);
    Some(limit.saturating_sub(used.saturating_sub(reclaimable)))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A machine with 4 GiB available, whose process is in `group`; each of `files` is a group's file and its text.
    fn machine(group: &str, files: &[(&str, &str)]) -> (TempDir, System) {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let system = System { proc: folder.path().join("proc"), groups: folder.path().join("groups") };
        let meminfo = "MemTotal:       8388608 kB\nMemFree:         100 kB\nMemAvailable:    4194304 kB\n";
        write(system.proc.join("meminfo"), meminfo);
        write(system.proc.join("self/cgroup"), &format!("4:memory:/other\n0::{group}\n"));
        for (name, text) in files {
            write(system.groups.join(name), text);
        }
        (folder, system)
    }

    fn of(group: &str, files: &[(&str, &str)]) -> Option<u64> {
        let (_folder, system) = machine(group, files);
        system.available()
    }

    const MACHINE: u64 = 4 << 30;

    #[test]
    fn without_a_limit_it_is_what_the_machine_has() {
        assert_eq!(of("/", &[]), Some(MACHINE));
        let unlimited = [("a/memory.max", "max\n"), ("a/memory.current", "5\n")];
        assert_eq!(of("/a", &unlimited), Some(MACHINE));
        let larger = [("a/memory.max", "99999999999\n"), ("a/memory.current", "5\n")];
        assert_eq!(of("/a", &larger), Some(MACHINE));
    }

    #[test]
    fn a_groups_limit_counts_and_cached_files_are_free() {
        let group = |name: &str, max: &str, current: &str| {
            [
                (format!("{name}memory.max"), max.to_owned()),
                (format!("{name}memory.current"), current.to_owned()),
            ]
        };
        let all = |parts: &[[(String, String); 2]]| {
            let files: Vec<_> =
                parts.iter().flatten().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            of("/a/b", &files)
        };
        assert_eq!(all(&[group("a/b/", "1000\n", "300\n")]), Some(700));
        assert_eq!(all(&[group("a/b/", "1000\n", "300\n"), group("a/", "800\n", "600\n")]), Some(200));
        // The root of a container is its own group.
        assert_eq!(all(&[group("", "900\n", "1000\n")]), Some(0));
        let stat = "anon 100\nactive_file 50\ninactive_file 60\nslab_reclaimable 7\nactive_anon 9000\n";
        let cached = [("a/memory.max", "1000\n"), ("a/memory.current", "300\n"), ("a/memory.stat", stat)];
        assert_eq!(of("/a", &cached), Some(1000 - (300 - 117)));
    }

    #[test]
    fn what_is_not_there_or_makes_no_sense_bounds_nothing() {
        let outside = [("a/memory.max", "1000\n"), ("a/memory.current", "300\n")];
        assert_eq!(of("/../../a", &outside), Some(MACHINE));
        assert_eq!(of("/a", &[("a/memory.max", "many\n")]), Some(MACHINE));
        let (folder, system) = machine("/", &[]);
        fs::write(system.proc.join("meminfo"), "MemAvailable: lots kB\n").unwrap();
        assert_eq!(system.available(), None);
        drop(folder);
        assert_eq!(system.available(), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_has_memory() {
        assert!(available().unwrap() > 1 << 20);
    }
}
