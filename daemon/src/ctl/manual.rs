//! Completions and manual pages, out of the registry of flags that help is printed from: none can say what the others do
//! not.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::flags::Cli;
use super::screen::Screen;
use crate::edge::failure::Failure;
use crate::edge::lrpathd;

/// A script that completes `lrpathctl` in a shell.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lrpathctl", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Prints the first manual page, or writes all of them into a folder.
///
/// # Errors
/// The folder cannot be written.
pub fn man(folder: Option<&Path>, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let pages = pages();
    let Some(folder) = folder else {
        return screen.text(pages.first().map_or("", |page| page.text.as_str()));
    };
    let failed = |error| {
        Failure::new(format!("the manual cannot be written to `{}`", folder.display()))
            .because(error)
            .hint("name a folder that you may write")
    };
    fs::create_dir_all(folder).map_err(failed)?;
    for page in &pages {
        fs::write(folder.join(&page.name), &page.text).map_err(failed)?;
    }
    screen.sentences(&format!("{} pages are in {}\n", pages.len(), folder.display()))
}

/// A manual page.
pub struct Page {
    /// Its file.
    pub name: String,
    /// Its text, in roff.
    pub text: String,
}

/// Those of `lrpathctl`, of each of its commands, and of `lrpathd`.
pub fn pages() -> Vec<Page> {
    let mut ctl = Cli::command();
    ctl.build();
    let mut pages = Vec::new();
    add(&mut pages, &ctl, "lrpathctl", "1");
    add(&mut pages, &lrpathd::Cli::command(), "lrpathd", "8");
    pages
}

fn add(pages: &mut Vec<Page>, command: &Command, name: &str, section: &str) {
    let mut text = Vec::new();
    let written = Man::new(command.clone()).title(name).section(section).render(&mut text);
    debug_assert!(written.is_ok(), "a vector takes everything");
    pages.push(Page { name: format!("{name}.{section}"), text: String::from_utf8_lossy(&text).into_owned() });
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
    for sub in shown {
        add(pages, sub, &format!("{name}-{}", sub.get_name()), section);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All commands with their names as they are typed, and the names and flags of what they take.
    fn registry(command: &Command, typed: &str, all: &mut Vec<(String, Vec<String>)>) {
        let flags = command.get_arguments().filter(|argument| !argument.is_hide_set());
        let flags = flags.filter_map(|argument| argument.get_long()).map(|long| format!("--{long}"));
        all.push((typed.to_owned(), flags.collect()));
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
            registry(sub, &format!("{typed} {}", sub.get_name()), all);
        }
    }

    fn commands() -> Vec<(String, Vec<String>)> {
        let mut command = Cli::command();
        command.build();
        let mut all = Vec::new();
        registry(&command, "lrpathctl", &mut all);
        all
    }

    fn help(typed: &str) -> String {
        let mut command = Cli::command().term_width(80);
        command.build();
        let mut command = &mut command;
        for name in typed.split(' ').skip(1) {
            command = command.find_subcommand_mut(name).unwrap();
        }
        command.clone().term_width(80).render_long_help().to_string()
    }

    #[test]
    fn help_manual_and_completions_name_every_command_and_flag() {
        let pages = pages();
        let all = commands();
        assert!(all.len() > 25, "{}", all.len());
        for (typed, flags) in &all {
            let name = format!("{}.1", typed.replace(' ', "-"));
            let page = &pages.iter().find(|page| page.name == name).unwrap_or_else(|| panic!("{name}")).text;
            let help = help(typed);
            for flag in flags {
                assert!(help.contains(flag.as_str()), "{typed} --help lacks {flag}");
                assert!(page.contains(&flag.replace('-', "\\-")), "{name} lacks {flag}");
            }
        }
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(shell);
            for (typed, flags) in &all {
                let last = typed.rsplit(' ').next().unwrap();
                assert!(script.contains(last), "{shell}: {typed}");
                for flag in flags {
                    // fish names a long flag without its dashes.
                    let written =
                        if shell == Shell::Fish { format!("-l {}", &flag[2..]) } else { flag.clone() };
                    assert!(script.contains(&written), "{shell}: {typed} {flag}");
                }
            }
        }
        assert!(pages.iter().any(|page| page.name == "lrpathd.8" && page.text.contains("\\-\\-state")));
    }

    #[test]
    fn help_fits_eighty_columns() {
        for (typed, _) in commands() {
            let help = help(&typed);
            let long: Vec<&str> = help.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(long.is_empty(), "{typed} --help: {long:#?}");
        }
    }

    #[test]
    fn the_pages_are_written_where_somebody_wants_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut out = Vec::new();
        let look = crate::edge::look::Look { terminal: false, colour: false, width: 80 };
        let mut screen = Screen { out: &mut out, look };
        man(Some(&folder.path().join("man/man1")), &mut screen).unwrap();
        let written = fs::read_dir(folder.path().join("man/man1")).unwrap().count();
        assert_eq!(written, pages().len());
        let blocked = folder.path().join("a file");
        fs::write(&blocked, "").unwrap();
        let refused = man(Some(&blocked), &mut screen).unwrap_err();
        assert!(refused.message.contains("the manual cannot be written to"), "{refused}");
        man(None, &mut screen).unwrap();
        assert!(String::from_utf8(out).unwrap().contains(".TH lrpathctl 1"));
    }
}
