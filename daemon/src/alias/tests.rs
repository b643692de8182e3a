use std::fs;

use artifacts::storage::Disk;
use paradigm::Paradigm::{Continual, PathSwitching};

use super::links::Links;
use super::*;
use crate::api::fixture::World;

/// Versions 1 to 3 of the first paradigm are public, and 1 of the other.
fn public() -> (World, tempfile::TempDir) {
    let mut world = World::new(&[PathSwitching, Continual]);
    world.accept("a.txt", 1 << 30);
    for version in 1..=4 {
        world.cut(1000, &format!("v{version}"));
        if version < 4 {
            world.make(PathSwitching, version);
        }
    }
    world.make(Continual, 1);
    let state = tempfile::tempdir().unwrap();
    for folder in ["v1", "v2", "v3", "continual/v1"] {
        fs::create_dir_all(state.path().join("releases").join(folder)).unwrap();
    }
    (world, state)
}

fn moved(
    world: &World,
    state: &tempfile::TempDir,
    name: &str,
    version: Option<Version>,
) -> Result<bool, NotMoved> {
    let releases = state.path().join("releases");
    let transition = world.ledger.read(|tree| judge(tree, &releases, PathSwitching, name, version))?;
    let is_moved = transition.is_some();
    if let Some(transition) = transition {
        world.commit(transition);
    }
    let links = Links::new(world.ledger.clone(), state.path(), std::sync::Arc::new(Disk));
    links.point().unwrap();
    Ok(is_moved)
}

fn target(state: &tempfile::TempDir, name: &str) -> Option<String> {
    let link = fs::read_link(state.path().join("releases").join(name)).ok()?;
    Some(link.to_str().unwrap().to_owned())
}

#[test]
fn a_name_moves_and_its_history_is_kept() {
    let (world, state) = public();
    assert_eq!(moved(&world, &state, "stable", Some(1)), Ok(true));
    assert_eq!(target(&state, "stable").as_deref(), Some("v1"));
    assert_eq!(moved(&world, &state, "stable", Some(1)), Ok(false), "it points there already");
    assert_eq!(moved(&world, &state, "stable", Some(3)), Ok(true));
    assert_eq!(target(&state, "stable").as_deref(), Some("v3"));
    assert_eq!(moved(&world, &state, "stable", None), Ok(true));
    assert_eq!(target(&state, "stable"), None);
    std::os::unix::fs::symlink("../elsewhere", state.path().join("releases/stable")).unwrap();
    Links::new(world.ledger.clone(), state.path(), std::sync::Arc::new(Disk)).point().unwrap();
    assert_eq!(
        target(&state, "stable").as_deref(),
        Some("../elsewhere"),
        "the name is free: this is not ours"
    );
    assert_eq!(target(&state, "latest").as_deref(), Some("v3"));
    assert_eq!(target(&state, "continual/latest").as_deref(), Some("v1"));
    let moves = world.ledger.read(|tree| tree.aliases()[&(PathSwitching, "stable".to_owned())].clone());
    assert_eq!(moves.iter().map(|one| one.version).collect::<Vec<_>>(), [Some(1), Some(3), None]);
    assert!(moves.is_sorted_by_key(|one| one.at));
    let again = world.ledger.read(|tree| Tree::from_nodes(tree.position(), tree.nodes()));
    assert_eq!(again.unwrap().aliases().len(), 1);
}

#[test]
fn each_paradigm_has_names_of_its_own() {
    let (world, state) = public();
    let releases = state.path().join("releases");
    let of = |paradigm| world.ledger.read(|tree| judge(tree, &releases, paradigm, "stable", Some(1)));
    for paradigm in [PathSwitching, Continual] {
        world.commit(of(paradigm).unwrap().unwrap());
    }
    Links::new(world.ledger.clone(), state.path(), std::sync::Arc::new(Disk)).point().unwrap();
    assert_eq!(target(&state, "stable").as_deref(), Some("v1"));
    assert_eq!(target(&state, "continual/stable").as_deref(), Some("v1"));
}

#[test]
fn what_cannot_be_pointed_to_is_refused_with_what_can() {
    let (world, state) = public();
    moved(&world, &state, "stable", Some(1)).unwrap();
    fs::write(state.path().join("releases/notes"), "by hand").unwrap();
    let refusals: Vec<String> = [
        ("stable", Some(4)),
        ("stable", Some(40)),
        ("stabel", None),
        ("anything", None),
        ("latest", Some(1)),
        ("v7", Some(1)),
        ("continual", Some(1)),
        ("notes", Some(1)),
        ("../outside", Some(1)),
        (".hidden", Some(1)),
        ("", Some(1)),
    ]
    .into_iter()
    .map(|(name, version)| {
        let refused = moved(&world, &state, name, version).unwrap_err();
        let hint = refused.hint().map_or_else(String::new, |hint| format!(" [{hint}]"));
        format!("{refused}{hint}")
    })
    .collect();
    insta::assert_snapshot!(refusals.join("\n"));
    assert!(moved(&world, &state, &"a".repeat(65), Some(1)).is_err());
    assert_eq!(target(&state, "stable").as_deref(), Some("v1"), "nothing has moved");
}
