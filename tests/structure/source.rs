//! A crate's sources as a tree of modules, without what only tests see.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, ImplItem, Item, Meta, Token, TraitItem, UseTree};

/// A module's absolute path, the crate first: `["daemon", "ledger", "tree"]`. A program of a crate is a module beside
/// its library's: `["daemon", "bin", "lrpathd"]`, `["trainer", "main"]`.
pub type ModulePath = Vec<String>;

/// In front of a path that starts with `::`.
pub const EXTERN: &str = "::";

/// A module that is compiled into a program.
pub struct Module {
    pub path: ModulePath,
    /// What `crate` means in it.
    pub root: ModulePath,
    /// Its file, relative to the workspace.
    pub file: PathBuf,
    pub items: Vec<Item>,
    pub scope: Scope,
}

/// The names that a module or a block gives to things.
#[derive(Default)]
pub struct Scope {
    pub names: BTreeMap<String, Vec<Name>>,
    /// Paths whose names are all imported.
    pub globs: Vec<Vec<String>>,
}

/// What a name stands for where it is declared.
#[derive(Clone)]
pub enum Name {
    Module(ModulePath),
    Item,
    Import(Vec<String>),
}

/// One path of a `use` item.
pub struct Import {
    pub segments: Vec<String>,
    /// The name that it gets, `None` for a glob.
    pub name: Option<String>,
    pub line: usize,
}

/// A crate's modules.
#[derive(Default)]
pub struct Sources {
    pub modules: BTreeMap<ModulePath, Module>,
    /// Files below `src` that no module declares.
    pub orphans: Vec<PathBuf>,
}

/// Reads the crate in `<workspace>/<name>`.
pub fn read(workspace: &Path, name: &str) -> Sources {
    let mut reader = Reader { workspace, sources: Sources::default(), known: BTreeSet::new() };
    let src = Path::new(name).join("src");
    let mut roots = vec![
        (src.join("lib.rs"), vec![name.to_owned()]),
        (src.join("main.rs"), vec![name.to_owned(), "main".to_owned()]),
    ];
    for file in rust_files(workspace, &src.join("bin")) {
        let program = file.file_stem().unwrap().to_str().unwrap().to_owned();
        if file.parent() == Some(&src.join("bin")) {
            roots.push((file, vec![name.to_owned(), "bin".to_owned(), program]));
        }
    }
    for (file, path) in roots {
        if workspace.join(&file).is_file() {
            reader.file(&file, path.clone(), &path, file.parent().unwrap(), false);
        }
    }
    let known = reader.known;
    let all = rust_files(workspace, &src);
    let orphans = all.into_iter().filter(|file| !known.contains(file)).collect();
    Sources { orphans, ..reader.sources }
}

struct Reader<'a> {
    workspace: &'a Path,
    sources: Sources,
    known: BTreeSet<PathBuf>,
}

impl Reader<'_> {
    /// Reads a file and what it declares; the files of its modules lie in `below`.
    fn file(&mut self, file: &Path, path: ModulePath, root: &ModulePath, below: &Path, for_tests: bool) {
        self.known.insert(file.to_owned());
        let text = std::fs::read_to_string(self.workspace.join(file)).unwrap();
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.module(file, path, root, below, for_tests || test_only(&parsed.attrs), parsed.items);
    }

    fn module(
        &mut self,
        file: &Path,
        path: ModulePath,
        root: &ModulePath,
        below: &Path,
        for_tests: bool,
        items: Vec<Item>,
    ) {
        for item in &items {
            let Item::Mod(child) = item else { continue };
            let name = child.ident.to_string();
            let redirected = child.attrs.iter().any(|attribute| attribute.path().is_ident("path"));
            assert!(!redirected, "{}: module {name} lies elsewhere than its name says", file.display());
            let for_tests = for_tests || test_only(&child.attrs);
            let child_path: ModulePath = path.iter().cloned().chain([name.clone()]).collect();
            let folder = below.join(&name);
            match &child.content {
                Some((_, items)) => self.module(file, child_path, root, &folder, for_tests, items.clone()),
                None => {
                    let beside = below.join(format!("{name}.rs"));
                    let own =
                        if self.workspace.join(&beside).is_file() { beside } else { folder.join("mod.rs") };
                    self.file(&own, child_path, root, &folder, for_tests);
                }
            }
        }
        if for_tests {
            return;
        }
        let items: Vec<Item> = items.into_iter().filter(|item| !test_only(attributes(item))).collect();
        let scope = Scope::of(&items, Some(&path));
        let module = Module { path: path.clone(), root: root.clone(), file: file.to_owned(), items, scope };
        self.sources.modules.insert(path, module);
    }
}

impl Scope {
    /// The names that items declare; `module` is the path of the module that they make up, none for those of a block.
    pub fn of<'a>(items: impl IntoIterator<Item = &'a Item>, module: Option<&ModulePath>) -> Self {
        let mut scope = Self::default();
        for item in items {
            if test_only(attributes(item)) {
                continue;
            }
            let named = match item {
                Item::Use(_) => {
                    for import in imports(item) {
                        match import.name {
                            None => scope.globs.push(import.segments),
                            Some(name) => scope.add(name, Name::Import(import.segments)),
                        }
                    }
                    continue;
                }
                Item::ExternCrate(item) => {
                    let name = item.rename.as_ref().map_or(&item.ident, |(_, name)| name);
                    let path = vec![EXTERN.to_owned(), item.ident.to_string()];
                    scope.add(name.to_string(), Name::Import(path));
                    continue;
                }
                Item::Mod(item) => {
                    let name = item.ident.to_string();
                    let path = |module: &ModulePath| module.iter().cloned().chain([name.clone()]).collect();
                    let child = module.map_or(Name::Item, |module| Name::Module(path(module)));
                    scope.add(name, child);
                    continue;
                }
                Item::Const(item) => &item.ident,
                Item::Enum(item) => &item.ident,
                Item::Fn(item) => &item.sig.ident,
                Item::Static(item) => &item.ident,
                Item::Struct(item) => &item.ident,
                Item::Trait(item) => &item.ident,
                Item::Type(item) => &item.ident,
                Item::Union(item) => &item.ident,
                _ => continue,
            };
            scope.add(named.to_string(), Name::Item);
        }
        scope
    }

    fn add(&mut self, name: String, is: Name) {
        self.names.entry(name).or_default().push(is);
    }
}

/// The paths of a `use` item, groups taken apart.
pub fn imports(item: &Item) -> Vec<Import> {
    let Item::Use(item) = item else { return Vec::new() };
    let start = if item.leading_colon.is_some() { vec![EXTERN.to_owned()] } else { Vec::new() };
    let mut found = Vec::new();
    take_apart(&item.tree, start, &mut found);
    found
}

fn take_apart(tree: &UseTree, mut before: Vec<String>, found: &mut Vec<Import>) {
    let line = tree.span().start().line;
    let mut import = |mut segments: Vec<String>, last: Option<String>, name: Option<String>| {
        // `a::{self}` is `a`, and `self` alone is the module itself.
        segments.extend(last.filter(|last| last != "self" || segments.is_empty()));
        let name =
            name.map(|name| if name == "self" { segments.last().cloned().unwrap_or(name) } else { name });
        found.push(Import { segments, name, line });
    };
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            take_apart(&path.tree, before, found);
        }
        UseTree::Name(name) => import(before, Some(name.ident.to_string()), Some(name.ident.to_string())),
        UseTree::Rename(name) => import(before, Some(name.ident.to_string()), Some(name.rename.to_string())),
        UseTree::Glob(_) => import(before, None, None),
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| take_apart(tree, before.clone(), found));
        }
    }
}

/// Whether something is there in tests alone: `#[cfg(test)]`, `#[cfg(all(test, ...))]`, `#[test]`.
pub fn test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args::<Meta>().is_ok_and(|of| needs_test(&of))
        }
        _ => false,
    })
}

fn needs_test(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => list
            .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
            .is_ok_and(|all| all.iter().any(needs_test)),
        _ => false,
    }
}

/// The attributes of an item.
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The attributes of something in an `impl`.
pub fn attributes_in_impl(item: &ImplItem) -> &[Attribute] {
    match item {
        ImplItem::Const(item) => &item.attrs,
        ImplItem::Fn(item) => &item.attrs,
        ImplItem::Macro(item) => &item.attrs,
        ImplItem::Type(item) => &item.attrs,
        _ => &[],
    }
}

/// The attributes of something in a trait.
pub fn attributes_in_trait(item: &TraitItem) -> &[Attribute] {
    match item {
        TraitItem::Const(item) => &item.attrs,
        TraitItem::Fn(item) => &item.attrs,
        TraitItem::Macro(item) => &item.attrs,
        TraitItem::Type(item) => &item.attrs,
        _ => &[],
    }
}

/// Every Rust file in a folder and below, relative to the workspace; none where there is no folder.
fn rust_files(workspace: &Path, folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(workspace.join(folder)) else { return Vec::new() };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in entries.map(Result::unwrap) {
        let path = folder.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            files.extend(rust_files(workspace, &path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
