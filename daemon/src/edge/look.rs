//! For whom something is printed: a person at a terminal, with its colours and its width, or a pipe.

use std::io::IsTerminal;

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

impl Look {
    /// For standard output as it is.
    pub fn of_stdout() -> Self {
        Self::of(std::io::stdout().is_terminal(), rustix::stdio::stdout())
    }

    /// For standard error as it is.
    pub fn of_stderr() -> Self {
        Self::of(std::io::stderr().is_terminal(), rustix::stdio::stderr())
    }

    fn of(terminal: bool, stream: std::os::fd::BorrowedFd<'_>) -> Self {
        let wants_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let columns = rustix::termios::tcgetwinsize(stream).map(|size| usize::from(size.ws_col));
        let width = columns.ok().filter(|columns| *columns > 0).unwrap_or(WIDTH).max(NARROWEST);
        Self { terminal, colour: terminal && !wants_none && !is_dumb, width }
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
