//! The only place that prints. Data goes to stdout; status, questions, progress and errors go to
//! stderr, so that stdout can be piped and, in stdio mode, is the protocol and nothing else.
//!
//! Colours appear on terminals only, and not with `--no-color` or `NO_COLOR`. Text that servers
//! wrote is cleaned on the way in: [`Ui::table`] does it for every cell, the rest of the verbs
//! call [`crate::cli::text`].

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::cli::error::CliError;
use crate::cli::text;
use crate::types::Secret;

/// How a verb speaks.
#[derive(Clone, Debug)]
pub struct Ui {
    json: bool,
}

/// A style for a word that carries meaning.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// A style for a word that carries bad news.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// A style for what waits.
pub const WAITING: Style = AnsiColor::Yellow.on_default();
/// A style for what matters less.
pub const FAINT: Style = Style::new().dimmed();
/// A style for what to look at.
pub const STRONG: Style = Style::new().bold();

/// A word in a style; the style vanishes where the output takes no colours.
pub fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Data on stdout, as it is: no colours are looked for in it. Nothing is certain to have been
/// written before [`Lines::flush`].
#[derive(Debug)]
pub struct Lines {
    out: io::BufWriter<io::Stdout>,
}

impl Lines {
    /// One line.
    ///
    /// # Errors
    /// As [`Ui::print`].
    pub fn line(&mut self, line: &str) -> Result<(), CliError> {
        writeln!(self.out, "{line}")?;
        Ok(())
    }

    /// A text with its own line ends.
    ///
    /// # Errors
    /// As [`Ui::print`].
    pub fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.out.write_all(text.as_bytes())?;
        Ok(())
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As [`Ui::print`].
    pub fn flush(&mut self) -> Result<(), CliError> {
        self.out.flush()?;
        Ok(())
    }
}

impl Ui {
    /// Decides once how to speak.
    pub fn new(json: bool, no_color: bool) -> Self {
        if no_color {
            anstream::ColorChoice::Never.write_global();
        }
        Self { json }
    }

    /// Whether data is wanted as JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether somebody can answer a question.
    pub fn interactive(&self) -> bool {
        !self.json && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// One line of data on stdout.
    ///
    /// # Errors
    /// What the write said; a reader that has gone away ends the verb with success.
    pub fn print(&self, line: &str) -> Result<(), CliError> {
        let mut out = anstream::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()?;
        Ok(())
    }

    /// Many lines of data on stdout, written together.
    pub fn lines(&self) -> Lines {
        Lines { out: io::BufWriter::with_capacity(1 << 16, io::stdout()) }
    }

    /// One JSON document on one line of stdout.
    ///
    /// # Errors
    /// As [`Ui::print`].
    pub fn print_json(&self, value: &impl Serialize) -> Result<(), CliError> {
        let json = serde_json::to_string(value)
            .map_err(|e| CliError::failure("cannot write JSON").caused_by(Some(&e)))?;
        // Not through anstream, which would look for colours in the data.
        let mut out = io::stdout().lock();
        writeln!(out, "{}", text::escape_json(&json))?;
        out.flush()?;
        Ok(())
    }

    /// A table without borders on stdout. Cells are cleaned here.
    ///
    /// # Errors
    /// As [`Ui::print`].
    pub fn table(&self, head: &[&str], rows: Vec<Vec<String>>) -> Result<(), CliError> {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(head.iter().map(|h| h.to_uppercase()));
        for row in rows {
            table.add_row(row.iter().map(|cell| text::clean(cell)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for line in table.to_string().lines() {
            self.print(line.trim_end())?;
        }
        Ok(())
    }

    /// A line of status on stderr. Lost if stderr is closed: status is never worth failing for.
    pub fn status(&self, line: &str) {
        drop(writeln!(anstream::stderr().lock(), "{line}"));
    }

    /// A warning on stderr.
    pub fn warn(&self, line: &str) {
        self.status(&format!("{} {line}", styled(WAITING.bold(), "warning:")));
    }

    /// Says on stderr why a verb failed.
    pub fn error(&self, error: &CliError) {
        if error.is_silent() {
            return;
        }
        if self.json {
            #[derive(Serialize)]
            struct Body<'a> {
                error: super::error::ErrorJson<'a>,
            }
            let json = serde_json::to_string(&Body { error: error.as_json() }).unwrap_or_default();
            drop(writeln!(io::stderr().lock(), "{}", text::escape_json(&json)));
            return;
        }
        self.status(&format!("{} {}", styled(BAD, "error:"), text::clean_lines(error.message())));
        for cause in error.causes() {
            self.status(&format!("{} {}", styled(FAINT, "cause:"), text::clean(cause)));
        }
        if let Some(hint) = error.next_step() {
            self.status(&format!("{} {}", styled(STRONG, "hint:"), text::clean(hint)));
        }
    }

    /// Asks a yes-or-no question; anything but yes is no.
    ///
    /// # Errors
    /// When stdin cannot be read.
    pub fn confirm(&self, question: &str) -> Result<bool, CliError> {
        let mut err = anstream::stderr().lock();
        write!(err, "{question} [y/N] ")?;
        err.flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Asks for one line.
    ///
    /// # Errors
    /// When stdin cannot be read.
    pub fn ask(&self, question: &str) -> Result<String, CliError> {
        let mut err = anstream::stderr().lock();
        write!(err, "{question} ")?;
        err.flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }

    /// Reads one line that is not shown while it is typed, where the terminal can do that; without
    /// a terminal, a line of stdin.
    ///
    /// # Errors
    /// When stdin cannot be read.
    pub fn secret(&self, question: &str) -> Result<Secret, CliError> {
        let mut typed = String::new();
        if !io::stdin().is_terminal() {
            io::stdin().read_line(&mut typed)?;
            return Ok(Secret::new(typed.trim_end_matches(['\n', '\r'])));
        }
        self.status(question);
        let shown = echo(false);
        let read = io::stdin().read_line(&mut typed);
        if shown {
            echo(true);
        }
        read?;
        Ok(Secret::new(typed.trim_end_matches(['\n', '\r'])))
    }

    /// Shows on a terminal that something takes time. It vanishes when dropped.
    pub fn spinner(&self, message: &str) -> Spinner {
        if self.json || !io::stderr().is_terminal() {
            return Spinner(None);
        }
        let bar = indicatif::ProgressBar::new_spinner();
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Spinner(Some(bar))
    }
}

/// Turns the terminal's echo on or off; says whether that worked.
#[cfg(unix)]
fn echo(on: bool) -> bool {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let terminal = io::stdin();
    let Ok(mut modes) = tcgetattr(&terminal) else { return false };
    modes.local_modes.set(LocalModes::ECHO, on);
    tcsetattr(&terminal, OptionalActions::Now, &modes).is_ok()
}

/// Windows consoles are not asked; what is typed is shown.
#[cfg(not(unix))]
fn echo(_on: bool) -> bool {
    false
}

/// A running spinner.
#[derive(Debug)]
pub struct Spinner(Option<indicatif::ProgressBar>);

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
