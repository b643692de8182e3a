//! The emulator, compiled: `emulator.cpp` with the kernels' very sources, and whatever else is to be in the library.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

/// The library in a folder, with further sources from another where one is given. It is compiled anew where something has changed.
pub fn compiled(name: &str, trainer: &Path, more: Option<&Path>, into: &Path) -> PathBuf {
    let emulator = trainer.join("tests/emulated_gpu");
    let mut folders = vec![emulator.clone(), trainer.join("src/kernels/cuda/source")];
    folders.extend(more.map(Path::to_owned));
    let mut hasher = DefaultHasher::new();
    let mut sources = vec![emulator.join("emulator.cpp")];
    for folder in &folders {
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().for_each(|file| fs::read(file).unwrap().hash(&mut hasher));
        let is_more = more == Some(folder);
        sources.extend(files.into_iter().filter(|file| is_more && file.extension() == Some("cpp".as_ref())));
    }
    let library = into.join(format!("{name}-{:016x}.so", hasher.finish()));
    if !library.exists() {
        let fresh = into.join(format!("{name}-{}.so", process::id()));
        let compiler = env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
        let output = Command::new(&compiler)
            .args(["-std=c++17", "-O3", "-fPIC", "-shared", "-ffp-contract=off", "-Wno-unknown-pragmas"])
            .arg("-DEMULATED")
            .args(folders.iter().map(|folder| format!("-I{}", folder.display())))
            .args(&sources)
            .arg("-o")
            .arg(&fresh)
            .output()
            .unwrap_or_else(|error| panic!("{compiler}: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(fresh, &library).unwrap();
    }
    library
}
