//! For whom something is printed: a person at a terminal, with its colours and its width, or a pipe.

use std::ffi::OsString;
use std::io::IsTerminal;

use textwrap::{WordSeparator, WordSplitter};

/// Width where nobody says what it is.
const WIDTH: usize = 80;
/// Narrower than this nothing can be drawn.
const NARROWEST: usize = 40;

/// Columns of a version's number and name on a terminal.
const LONGEST_TITLE: usize = 17;

/// For whom something is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// A person looks at it now.
    pub terminal: bool,
    /// It may have colours.
    pub colour: bool,
    /// Columns of the terminal.
    pub width: usize,
}

/// A colour with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// A heading.
    Strong,
    /// What matters less.
    Faint,
    /// It is done.
    Good,
    /// It goes on.
    Busy,
    /// It waits.
    Calm,
    /// It went wrong.
    Bad,
}

/// Whether colours are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Colours {
    /// On a terminal, unless NO_COLOR is set; elsewhere if CLICOLOR_FORCE is
    #[default]
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

impl Colours {
    /// Whether there are colours, by what the environment says.
    fn on(self, terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
        let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty() && value != "0");
        // Any value counts, by no-color.org.
        let wants_none = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if wants_none => false,
            Self::Auto => {
                is_set("CLICOLOR_FORCE") || terminal && variable("TERM").is_none_or(|term| term != "dumb")
            }
        }
    }
}

impl Look {
    /// For standard output as it is.
    pub fn of_stdout(colours: Colours) -> Self {
        Self::of(std::io::stdout().is_terminal(), rustix::stdio::stdout(), colours)
    }

    /// For standard error as it is.
    pub fn of_stderr(colours: Colours) -> Self {
        Self::of(std::io::stderr().is_terminal(), rustix::stdio::stderr(), colours)
    }

    fn of(terminal: bool, stream: std::os::fd::BorrowedFd<'_>, colours: Colours) -> Self {
        let columns = rustix::termios::tcgetwinsize(stream).map(|size| usize::from(size.ws_col));
        let width = columns.ok().filter(|columns| *columns > 0).unwrap_or(WIDTH).max(NARROWEST);
        Self { terminal, colour: colours.on(terminal, |name| std::env::var_os(name)), width }
    }

    /// Text in a colour.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Strong => "1",
            Paint::Faint => "2",
            Paint::Good => "32",
            Paint::Busy => "36",
            Paint::Calm => "33",
            Paint::Bad => "31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// A title that takes not too much of a line; whole where nobody looks.
    pub fn short(&self, title: &str) -> String {
        self.fit(title, self.width.saturating_sub(LONGEST_TITLE))
    }

    /// Lines that are broken between words where they are too long, what follows a little further in; whole where nobody
    /// looks, so that a pipe has one line for one thing.
    pub fn wrapped(&self, text: &str) -> String {
        self.broken(text, |line| " ".repeat(line.len() - line.trim_start().len() + 2))
    }

    /// As [`Look::wrapped`], of lines that all begin with `prefix`.
    pub fn wrapped_behind(&self, prefix: &str, text: &str) -> String {
        self.broken(text, |_| format!("{prefix}   "))
    }

    fn broken(&self, text: &str, indent: impl Fn(&str) -> String) -> String {
        if !self.terminal {
            return text.to_owned();
        }
        let broken = |line: &str| {
            let indent = indent(line);
            let options = textwrap::Options::new(self.width)
                .subsequent_indent(&indent)
                .break_words(false)
                .word_separator(WordSeparator::AsciiSpace)
                .word_splitter(WordSplitter::NoHyphenation);
            let end = if line.ends_with('\n') { "\n" } else { "" };
            let line = line.trim_end_matches('\n');
            // A line that fits stays as it is, with the blanks at its end.
            match textwrap::core::display_width(line) > self.width {
                true => textwrap::fill(line, options) + end,
                false => line.to_owned() + end,
            }
        };
        text.split_inclusive('\n').map(broken).collect()
    }

    /// Text that fits what is left of a line; whole where nobody looks.
    pub fn fit(&self, text: &str, used: usize) -> String {
        let room = self.width.saturating_sub(used);
        if !self.terminal || text.chars().count() <= room {
            return text.to_owned();
        }
        let kept: String = text.chars().take(room.saturating_sub(1)).collect();
        format!("{}…", kept.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_broken_between_words_and_only_for_people() {
        let look = Look { terminal: true, colour: true, width: 40 };
        let long = format!(
            "  {} of a line that is much too long for a terminal\nshort\n",
            look.paint(Paint::Bad, "an end")
        );
        let wrapped = look.wrapped(&long);
        assert_eq!(
            wrapped,
            "  \u{1b}[31man end\u{1b}[0m of a line that is much too long\n    for a terminal\nshort\n"
        );
        assert_eq!(Look { terminal: false, ..look }.wrapped(&long), long);
        let path = format!("{}  \n", "/a".repeat(20));
        assert_eq!(look.wrapped(&path), format!("{}\n", "/a".repeat(20)), "no path is broken");
        let comment = look.wrapped_behind("#", "# what follows from all of these settings\n");
        assert_eq!(comment, "# what follows from all of these\n#   settings\n");
    }

    #[test]
    fn colours_are_where_they_are_wanted() {
        let with = |set: &'static [(&str, &str)]| {
            move |name: &str| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
            }
        };
        // What is asked for, on a terminal, the environment: and whether there are colours.
        type Case = (Colours, bool, &'static [(&'static str, &'static str)], bool);
        let cases: [Case; 10] = [
            (Colours::Auto, true, &[], true),
            (Colours::Auto, false, &[], false),
            (Colours::Auto, true, &[("NO_COLOR", "1")], false),
            (Colours::Auto, true, &[("NO_COLOR", "")], true),
            (Colours::Auto, true, &[("TERM", "dumb")], false),
            (Colours::Auto, false, &[("CLICOLOR_FORCE", "1")], true),
            (Colours::Auto, false, &[("CLICOLOR_FORCE", "0")], false),
            (Colours::Auto, false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
            (Colours::Always, false, &[("NO_COLOR", "1")], true),
            (Colours::Never, true, &[("CLICOLOR_FORCE", "1")], false),
        ];
        for (colours, terminal, set, expected) in cases {
            assert_eq!(colours.on(terminal, with(set)), expected, "{colours:?}, {terminal}, {set:?}");
        }
    }
}
