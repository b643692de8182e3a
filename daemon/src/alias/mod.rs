//! Names for public versions: `stable` and whatever else a team calls them.
//!
//! A name is a link beside the versions' folders, so it has to be a file name, and none that the publisher uses itself.

pub mod links;

use std::path::{Path, PathBuf};

use artifacts::release::LATEST;
use paradigm::Paradigm;

use crate::config::nearest;
use crate::ledger::path::Version;
use crate::ledger::transition::Transition;
use crate::ledger::tree::Tree;

/// Longest name, in bytes.
const LONGEST: usize = 64;

/// Why a name is not moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotMoved {
    /// It cannot be a name.
    #[error(
        "`{0}` cannot be a name of a version: it must begin with a letter, and be made of at most 64 letters, digits, \
         `-`, `_` and `.`"
    )]
    Name(String),
    /// It means something else.
    #[error("`{0}` is taken: {1}")]
    Taken(String, &'static str),
    /// There is no such version to point to.
    #[error("version {version} of {paradigm} is not public")]
    NotPublic {
        /// Whose.
        paradigm: Paradigm,
        /// Which.
        version: Version,
        /// The public one with the nearest number.
        nearest: Option<Version>,
    },
    /// There is no such name to take away.
    #[error("no version of {paradigm} is called `{name}`")]
    Unknown {
        /// Whose.
        paradigm: Paradigm,
        /// What was asked for.
        name: String,
        /// A name that was most likely meant.
        nearest: Option<String>,
    },
}

impl NotMoved {
    /// What to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotPublic { nearest: Some(nearest), .. } => {
                Some(format!("version {nearest} is; `lrpathctl versions` lists them"))
            }
            Self::NotPublic { nearest: None, .. } => Some("no version is public yet".to_owned()),
            Self::Unknown { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::Unknown { nearest: None, .. } => Some("`lrpathctl alias` lists the names".to_owned()),
            Self::Name(_) | Self::Taken(..) => None,
        }
    }
}

/// What moves a name to a version, or takes it away; none where it points there already.
///
/// # Errors
/// Why it is not moved.
pub fn judge(
    tree: &Tree,
    releases: &Path,
    paradigm: Paradigm,
    name: &str,
    version: Option<Version>,
) -> Result<Option<Transition>, NotMoved> {
    let now = tree.alias(paradigm, name);
    match version {
        None if now.is_none() => {
            let names = tree
                .aliases()
                .keys()
                .filter(|(of, other)| *of == paradigm && tree.alias(*of, other).is_some());
            let nearest = nearest(name, names.map(|(_, other)| other.as_str())).map(str::to_owned);
            return Err(NotMoved::Unknown { paradigm, name: name.to_owned(), nearest });
        }
        None => {}
        Some(version) => {
            is_free(name, &folder(tree, releases, paradigm))?;
            if !tree.releases().contains_key(&(paradigm, version)) {
                let public =
                    tree.releases().keys().filter(|(of, _)| *of == paradigm).map(|(_, public)| *public);
                let nearest = public.min_by_key(|public| (public.abs_diff(version), *public));
                return Err(NotMoved::NotPublic { paradigm, version, nearest });
            }
        }
    }
    let moved = || Transition::AliasMoved { paradigm, name: name.to_owned(), version };
    Ok((now != version).then(moved))
}

/// The folder that a paradigm's versions and names lie in.
pub fn folder(tree: &Tree, releases: &Path, paradigm: Paradigm) -> PathBuf {
    match tree.paradigms().first() == Some(&paradigm) {
        true => releases.to_owned(),
        false => releases.join(paradigm.to_string()),
    }
}

/// Whether a folder of a version can be called so.
fn is_version(name: &str) -> bool {
    let number = name.strip_prefix('v').filter(|number| !number.is_empty());
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_free(name: &str, folder: &Path) -> Result<(), NotMoved> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name =
        name.bytes().all(is_letter) && name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic());
    if !is_name || name.len() > LONGEST {
        return Err(NotMoved::Name(name.to_owned()));
    }
    let taken = |why| Err(NotMoved::Taken(name.to_owned(), why));
    if name == LATEST {
        return taken("the daemon moves it to the newest version");
    }
    if is_version(name) {
        return taken("versions are called so");
    }
    if name.parse::<Paradigm>().is_ok() {
        return taken("a paradigm is called so");
    }
    let is_other = |facts: std::fs::Metadata| !facts.is_symlink();
    if folder.join(name).symlink_metadata().is_ok_and(is_other) {
        return taken("a file or folder beside the versions is called so");
    }
    // One that leads to a version is an alias that was taken away, or points elsewhere by accident.
    let leads = std::fs::read_link(folder.join(name)).ok();
    if leads.is_some_and(|to| !to.to_str().is_some_and(is_version)) {
        return taken("a link of somebody else's beside the versions is called so");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
