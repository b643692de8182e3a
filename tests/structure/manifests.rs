//! What the crates need, by their manifests and the lock file.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// A crate's manifest.
pub struct Manifest {
    /// Relative to the workspace.
    pub file: PathBuf,
    /// The package's name.
    pub package: String,
    /// What it is built with: the name in the sources, and the package. Tests' own are left out.
    pub needs: BTreeMap<String, String>,
    text: String,
}

impl Manifest {
    /// Reads `<workspace>/<name>/Cargo.toml`.
    pub fn read(workspace: &Path, name: &str) -> Self {
        let file = Path::new(name).join("Cargo.toml");
        let text = std::fs::read_to_string(workspace.join(&file)).unwrap();
        let manifest: Table = text.parse().unwrap();
        let shared: Table = table(&workspace.join("Cargo.toml"));
        let shared = &shared["workspace"]["dependencies"];
        let platforms = manifest.get("target").and_then(Value::as_table);
        let platforms = platforms.into_iter().flat_map(Table::values).filter_map(Value::as_table);
        let mut needs = BTreeMap::new();
        for tables in platforms.chain([&manifest]) {
            for kind in ["dependencies", "build-dependencies"] {
                for (name, wanted) in tables.get(kind).and_then(Value::as_table).into_iter().flatten() {
                    let from =
                        if wanted.get("workspace").is_some() { &shared[name.as_str()] } else { wanted };
                    let package = from.get("package").and_then(Value::as_str).unwrap_or(name);
                    needs.insert(name.replace('-', "_"), package.to_owned());
                }
            }
        }
        let package = manifest["package"]["name"].as_str().unwrap().to_owned();
        Self { file, package, needs, text }
    }

    /// The line that asks for a package, by its name in the sources.
    pub fn line(&self, name: &str) -> usize {
        let asks = |line: &str| {
            let line = line.trim_start_matches("[dependencies.").replace('-', "_");
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '.', '=', ']']))
        };
        self.text.lines().position(asks).map_or(1, |line| line + 1)
    }
}

/// The packages of the lock file, and what each needs; a project's crate without what its tests alone need.
pub struct Lock {
    needs: BTreeMap<String, BTreeSet<String>>,
}

impl Lock {
    /// Reads `<workspace>/Cargo.lock`.
    pub fn read(workspace: &Path, manifests: &[Manifest]) -> Self {
        let lock = table(&workspace.join("Cargo.lock"));
        let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for package in lock["package"].as_array().unwrap() {
            let name = package["name"].as_str().unwrap();
            let all = package.get("dependencies").and_then(Value::as_array).into_iter().flatten();
            // "name" or "name version": versions of one package are taken together, which errs on the strict side.
            let all = all.map(|dependency| dependency.as_str().unwrap().split(' ').next().unwrap());
            let own = manifests.iter().find(|manifest| manifest.package == name);
            let all =
                all.filter(|needed| own.is_none_or(|own| own.needs.values().any(|built| built == needed)));
            needs.entry(name.to_owned()).or_default().extend(all.map(str::to_owned));
        }
        for manifest in manifests {
            needs.entry(manifest.package.clone()).or_default().extend(manifest.needs.values().cloned());
        }
        Self { needs }
    }

    /// The shortest way from a package to one whose name starts with `prefix`.
    pub fn way(&self, package: &str, prefix: &str) -> Option<Vec<String>> {
        let mut ways = VecDeque::from([vec![package.to_owned()]]);
        let mut seen = BTreeSet::from([package.to_owned()]);
        while let Some(way) = ways.pop_front() {
            let last = way.last()?;
            if way.len() > 1 && last.starts_with(prefix) {
                return Some(way);
            }
            for next in self.needs.get(last).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    ways.push_back(way.iter().chain([next]).cloned().collect());
                }
            }
        }
        None
    }
}

fn table(file: &Path) -> Table {
    std::fs::read_to_string(file).unwrap().parse().unwrap()
}
