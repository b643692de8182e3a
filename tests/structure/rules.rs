//! The rules, and where the sources break them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::floors::{CRATES, FLOORS, KEPT_OUT};
use crate::manifests::{Lock, Manifest};
use crate::names::Names;
use crate::paths::{Arrow, arrows};
use crate::source::{self, Module, ModulePath, Sources};

/// A place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Breach {
    /// Relative to the workspace.
    pub file: PathBuf,
    pub line: usize,
    /// The rule's name.
    pub rule: &'static str,
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, rule, what } = self;
        write!(f, "{}:{line}: {rule}: {what}", file.display())
    }
}

/// A crate uses another one that the layout does not give it.
pub const ARROW: &str = "arrow between crates";
/// A crate needs a package that is kept out of it.
pub const PACKAGE: &str = "package kept out";
/// A room uses one that is not on a floor below.
pub const FLOOR: &str = "floors";
/// A room has no floor.
pub const ROOM: &str = "room without a floor";
/// Rooms use each other in a circle.
pub const CIRCLE: &str = "circle";
/// A file belongs to no module.
pub const ORPHAN: &str = "file without a module";

/// Everything in a workspace that breaks a rule.
pub fn breaches(workspace: &Path) -> BTreeSet<Breach> {
    let sources: Vec<Sources> = CRATES.iter().map(|(name, _)| source::read(workspace, name)).collect();
    let manifests: Vec<Manifest> = CRATES.iter().map(|(name, _)| Manifest::read(workspace, name)).collect();
    let modules = || sources.iter().flat_map(|sources| sources.modules.values());
    let names = Names {
        modules: modules().map(|module| (&module.path, module)).collect(),
        crates: CRATES
            .iter()
            .zip(&manifests)
            .map(|((name, _), of)| (name.to_string(), known(of, &manifests)))
            .collect(),
    };
    let mut breaches = packages(workspace, &manifests);
    breaches.extend(floors_without_room(&modules().map(|module| &module.path).collect::<Vec<_>>()));
    let mut rooms = Rooms::default();
    for module in modules() {
        breaches.extend(without_floor(module));
        for arrow in arrows(&names, module) {
            breaches.extend(between_crates(module, &arrow));
            rooms.add(module, &arrow);
        }
    }
    for file in sources.iter().flat_map(|sources| &sources.orphans) {
        let what = "no `mod` declares it: it is not compiled".to_owned();
        breaches.insert(Breach { file: file.clone(), line: 1, rule: ORPHAN, what });
    }
    breaches.extend(rooms.against_floors());
    breaches.extend(rooms.circles());
    breaches
}

/// The project's crates under the names that a crate's sources may give them.
fn known(manifest: &Manifest, all: &[Manifest]) -> BTreeMap<String, String> {
    let crate_of = |package: &str| {
        let at = all.iter().position(|manifest| manifest.package == package);
        at.map(|at| CRATES[at].0.to_owned())
    };
    let needed = manifest.needs.iter().filter_map(|(name, package)| Some((name.clone(), crate_of(package)?)));
    CRATES.iter().map(|(name, _)| (name.to_string(), name.to_string())).chain(needed).collect()
}

fn packages(workspace: &Path, manifests: &[Manifest]) -> BTreeSet<Breach> {
    let mut breaches = BTreeSet::new();
    let lock = Lock::read(workspace, manifests);
    for ((name, allowed), manifest) in CRATES.iter().zip(manifests) {
        let mut breach = |line, rule, what| {
            breaches.insert(Breach { file: manifest.file.clone(), line, rule, what });
        };
        for (needed, package) in &manifest.needs {
            let other = CRATES.iter().zip(manifests).find(|(_, other)| other.package == *package);
            if let Some(((other, _), _)) = other
                && !allowed.contains(other)
            {
                breach(manifest.line(needed), ARROW, format!("{name} needs {other}, {}", may_use(allowed)));
            }
        }
        for prefix in KEPT_OUT.iter().filter(|(of, _)| of == name).flat_map(|(_, prefixes)| *prefixes) {
            if let Some(way) = lock.way(&manifest.package, prefix) {
                let direct = manifest.needs.iter().find(|(_, package)| **package == way[1]);
                let line = direct.map_or(1, |(name, _)| manifest.line(name));
                breach(line, PACKAGE, format!("{name} must do without {prefix}: {}", way.join(" -> ")));
            }
        }
    }
    breaches
}

fn may_use(allowed: &[&str]) -> String {
    if allowed.is_empty() {
        "and may use no other crate of the project".to_owned()
    } else {
        format!("and may use {} alone", allowed.join(" and "))
    }
}

fn between_crates(module: &Module, arrow: &Arrow) -> Option<Breach> {
    let (from, to) = (&module.path[0], &arrow.to[0]);
    let (_, allowed) = CRATES.iter().find(|(name, _)| name == from)?;
    if from == to || allowed.contains(&to.as_str()) {
        return None;
    }
    let what = format!("`{}` leads from {from} to {to}, {}", arrow.text, may_use(allowed));
    Some(Breach { file: module.file.clone(), line: arrow.line, rule: ARROW, what })
}

/// The floor of a room in its folder, from 0; none for a room that is not in the plan.
fn floor(folder: &[String], room: &str) -> Option<usize> {
    let (_, floors) = FLOORS.iter().find(|(name, _)| *name == folder.join("::"))?;
    floors.iter().position(|rooms| rooms.contains(&room))
}

fn without_floor(module: &Module) -> Option<Breach> {
    let (room, folder) = module.path.split_last().filter(|(_, folder)| !folder.is_empty())?;
    // The folder of the programs is a room of its crate, though no file is named so.
    let placed = floor(folder, room).is_some();
    let what = format!("{} has no floor in {}", module.path.join("::"), folder.join("::"));
    (!placed).then(|| Breach { file: module.file.clone(), line: 1, rule: ROOM, what })
}

/// The plan's own mistakes: rooms that are no more.
fn floors_without_room(modules: &[&ModulePath]) -> Vec<Breach> {
    let planned = FLOORS.iter().flat_map(|(folder, floors)| {
        floors.iter().copied().flatten().map(move |room| format!("{folder}::{room}"))
    });
    let is_there = |room: &String| {
        let path: Vec<&str> = room.split("::").collect();
        modules.iter().any(|module| module.iter().zip(&path).filter(|(a, b)| a == b).count() == path.len())
    };
    let missing = planned.filter(|room| !is_there(room)).map(|room| Breach {
        file: PathBuf::from("tests/structure/floors.rs"),
        line: 1,
        rule: FLOOR,
        what: format!("{room} has a floor, and is no module"),
    });
    missing.collect()
}

/// The arrows between rooms that stand side by side.
#[derive(Default)]
struct Rooms {
    /// For each folder: from room, to room, and where.
    folders: BTreeMap<ModulePath, BTreeMap<(String, String), BTreeSet<Place>>>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: PathBuf,
    line: usize,
    text: String,
}

impl Rooms {
    fn add(&mut self, module: &Module, arrow: &Arrow) {
        let shared = module.path.iter().zip(&arrow.to).take_while(|(a, b)| a == b).count();
        // Another crate, or the face of a folder around, or a room inside one's own folder.
        let (Some(from), Some(to)) = (module.path.get(shared), arrow.to.get(shared)) else { return };
        if shared == 0 {
            return;
        }
        let place = Place { file: module.file.clone(), line: arrow.line, text: arrow.text.clone() };
        let folder = self.folders.entry(module.path[..shared].to_vec()).or_default();
        folder.entry((from.clone(), to.clone())).or_default().insert(place);
    }

    fn against_floors(&self) -> impl Iterator<Item = Breach> {
        self.folders.iter().flat_map(|(folder, arrows)| {
            let wrong = arrows.iter().filter_map(|((from, to), places)| {
                let (above, below) = (floor(folder, from)?, floor(folder, to)?);
                (below >= above).then_some((
                    from,
                    to,
                    places,
                    if below == above { "beside" } else { "above" },
                ))
            });
            wrong.flat_map(move |(from, to, places, stands)| {
                places.iter().map(move |place| Breach {
                    file: place.file.clone(),
                    line: place.line,
                    rule: FLOOR,
                    what: format!(
                        "`{}` leads from {from} to {to}, which stands {stands} it in {}",
                        place.text,
                        folder.join("::")
                    ),
                })
            })
        })
    }

    fn circles(&self) -> BTreeSet<Breach> {
        let mut breaches = BTreeSet::new();
        for (folder, arrows) in &self.folders {
            for ((from, to), places) in arrows {
                let Some(back) = way(arrows, to, from) else { continue };
                let Some(place) = places.first() else { continue };
                let circle: Vec<&str> = [from].into_iter().chain(back).map(String::as_str).collect();
                // Each circle once, from its first room.
                if circle.iter().any(|room| *room < from.as_str()) {
                    continue;
                }
                let what = format!("in {}: {}", folder.join("::"), circle.join(" -> "));
                breaches.insert(Breach { file: place.file.clone(), line: place.line, rule: CIRCLE, what });
            }
        }
        breaches
    }
}

/// The rooms on the shortest way along arrows, both ends included.
fn way<'a, T>(
    arrows: &'a BTreeMap<(String, String), T>,
    from: &'a String,
    to: &String,
) -> Option<Vec<&'a String>> {
    let mut ways = VecDeque::from([vec![from]]);
    let mut seen = BTreeSet::from([from]);
    while let Some(way) = ways.pop_front() {
        let last = *way.last()?;
        if last == to {
            return Some(way);
        }
        for (start, next) in arrows.keys() {
            if start == last && seen.insert(next) {
                ways.push_back(way.iter().copied().chain([next]).collect());
            }
        }
    }
    None
}
