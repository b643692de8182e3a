//! What a path in the sources means: the modules that it goes through and the one where it ends.
//!
//! Names are resolved as the compiler does it, as far as modules are concerned: `crate`, `self` and chains of `super`,
//! renamed and nested imports, globs, re-exports. What an item of a module has inside it (variants, associated items)
//! belongs to that module.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{EXTERN, Module, ModulePath, Name, Scope};

/// Where a path leads.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Module(ModulePath),
    /// Something that is declared in a module.
    ItemOf(ModulePath),
}

impl Target {
    pub fn module(&self) -> &ModulePath {
        let (Self::Module(path) | Self::ItemOf(path)) = self;
        path
    }
}

/// The modules of the project, and under which names its crates are known in each of them.
pub struct Names<'a> {
    pub modules: BTreeMap<&'a ModulePath, &'a Module>,
    /// For each crate, what a name outside of it stands for.
    pub crates: BTreeMap<String, BTreeMap<String, String>>,
}

/// Names that are being looked up, so that `use images::images` does not ask itself.
type Underway = Vec<(ModulePath, String)>;

impl Names<'_> {
    /// What each beginning of a path leads to: one set for each segment, empty where it leads out of the project.
    pub fn resolve(&self, module: &Module, blocks: &[Scope], segments: &[String]) -> Vec<BTreeSet<Target>> {
        self.walk(module, blocks, segments, &mut Vec::new())
    }

    /// What a single name leads to that no item and no import of its module or blocks declares: it comes by a glob.
    pub fn by_glob(&self, module: &Module, blocks: &[Scope], name: &str) -> BTreeSet<Target> {
        let scopes = || blocks.iter().chain([&module.scope]);
        if scopes().any(|scope| scope.names.contains_key(name)) {
            return BTreeSet::new();
        }
        scopes().flat_map(|scope| self.in_globs(module, scope, name, &mut Vec::new())).collect()
    }

    fn walk(
        &self,
        module: &Module,
        blocks: &[Scope],
        segments: &[String],
        underway: &mut Underway,
    ) -> Vec<BTreeSet<Target>> {
        let mut steps: Vec<BTreeSet<Target>> = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            let step = match (steps.last(), segment.as_str()) {
                (_, "crate") => BTreeSet::from([Target::Module(module.root.clone())]),
                (None, "self") => BTreeSet::from([Target::Module(module.path.clone())]),
                (None, "super") => parent(&module.path),
                (Some(before), "super") => before.iter().flat_map(|target| parent(target.module())).collect(),
                (Some(before), "self") => before.clone(),
                (None, EXTERN) => BTreeSet::new(),
                (Some(_), name) if at == 1 && segments[0] == EXTERN => self.outside(module, name),
                (None, name) => self.first(module, blocks, name, underway),
                (Some(before), name) => {
                    before.iter().flat_map(|target| self.inside(target, name, underway)).collect()
                }
            };
            steps.push(step);
        }
        steps
    }

    /// A name as the first segment: of a block, of the module, or of another crate.
    fn first(
        &self,
        module: &Module,
        blocks: &[Scope],
        name: &str,
        underway: &mut Underway,
    ) -> BTreeSet<Target> {
        for scope in blocks.iter().rev().chain([&module.scope]) {
            let found = self.in_scope(module, scope, name, underway);
            if !found.is_empty() {
                return found;
            }
        }
        self.outside(module, name)
    }

    fn outside(&self, module: &Module, name: &str) -> BTreeSet<Target> {
        let known = self.crates.get(&module.path[0]).and_then(|names| names.get(name));
        known.map(|name| Target::Module(vec![name.clone()])).into_iter().collect()
    }

    /// A name behind something that is known already.
    fn inside(&self, target: &Target, name: &str, underway: &mut Underway) -> BTreeSet<Target> {
        let Target::Module(path) = target else { return BTreeSet::from([target.clone()]) };
        let Some(module) = self.modules.get(path) else { return BTreeSet::from([target.clone()]) };
        let found = self.in_scope(module, &module.scope, name, underway);
        // What a macro declares cannot be seen: it belongs to the module.
        if found.is_empty() { BTreeSet::from([Target::ItemOf(path.clone())]) } else { found }
    }

    fn in_scope(
        &self,
        module: &Module,
        scope: &Scope,
        name: &str,
        underway: &mut Underway,
    ) -> BTreeSet<Target> {
        let Some(declared) = scope.names.get(name) else {
            return self.in_globs(module, scope, name, underway);
        };
        let asked = (module.path.clone(), name.to_owned());
        let mut found = BTreeSet::new();
        for is in declared {
            match is {
                Name::Module(path) => {
                    found.insert(Target::Module(path.clone()));
                }
                Name::Item => {
                    found.insert(Target::ItemOf(module.path.clone()));
                }
                Name::Import(segments) if !underway.contains(&asked) => {
                    underway.push(asked.clone());
                    found.extend(self.walk(module, &[], segments, underway).pop().unwrap_or_default());
                    underway.pop();
                }
                Name::Import(_) => {}
            }
        }
        found
    }

    fn in_globs(
        &self,
        module: &Module,
        scope: &Scope,
        name: &str,
        underway: &mut Underway,
    ) -> BTreeSet<Target> {
        let asked = (module.path.clone(), format!("*{name}"));
        if underway.contains(&asked) {
            return BTreeSet::new();
        }
        underway.push(asked);
        let mut found = BTreeSet::new();
        for glob in &scope.globs {
            for target in self.walk(module, &[], glob, underway).pop().unwrap_or_default() {
                let Target::Module(path) = &target else { continue };
                if let Some(other) = self.modules.get(path) {
                    found.extend(self.in_scope(other, &other.scope, name, underway));
                }
            }
        }
        underway.pop();
        found
    }
}

fn parent(path: &ModulePath) -> BTreeSet<Target> {
    let above = path.split_last().map(|(_, above)| above.to_vec()).filter(|above| !above.is_empty());
    above.map(Target::Module).into_iter().collect()
}
