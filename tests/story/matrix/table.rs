//! The table of the matrix: what each pair does, and who does not offer what it does not do.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::drive::{Driver, Sight};
use super::{Behind, Line, Route};

/// What is tried with every pair.
const FEATURES: [&str; 7] = ["list", "call", "read", "prompt", "progress", "cancel", "resume"];

/// The rows so far.
#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 10]>,
}

impl Table {
    /// Adds what one client did with one server.
    pub fn row(&mut self, driver: Driver, route: Route, line: &Line, sight: Option<&Sight>) {
        let route_name = if route == Route::Stdio { "connect --stdio" } else { "connect" };
        let mut row: [String; 10] = std::array::from_fn(|_| String::new());
        row[0] = line.server.name.to_owned();
        row[1] = driver.name();
        row[2] = route_name.to_owned();
        for (cell, feature) in row.iter_mut().skip(3).zip(FEATURES) {
            *cell = cell_of(driver, route, line, sight, feature);
        }
        self.rows.push(row);
    }

    /// Writes the table beside the other results and prints it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(mut self, name: &str) -> anyhow::Result<()> {
        self.rows.sort();
        let head = ["server", "client", "through"].into_iter().chain(FEATURES);
        let head: Vec<_> = head.map(str::to_owned).collect();
        let all = || std::iter::once(head.as_slice()).chain(self.rows.iter().map(|row| &row[..]));
        let widths: Vec<_> = (0..head.len())
            .map(|column| all().map(|row| row[column].len()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in all() {
            for (cell, width) in row.iter().zip(&widths) {
                write!(text, "{cell:width$}  ")?;
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("matrix");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{name}.txt")), &text)?;
        println!("\n{text}");
        Ok(())
    }
}

/// `yes`, or who does not offer it.
fn cell_of(
    driver: Driver,
    route: Route,
    line: &Line,
    sight: Option<&Sight>,
    feature: &str,
) -> String {
    let step = sight.and_then(|sight| sight.iter().find(|(step, _)| step == feature));
    let offered = line.server.steps.iter().any(|step| step["step"] == feature);
    match step {
        _ if line.strangers(driver) => "not offered: no version in common",
        Some((_, what)) if what.get("error").is_none() => "yes",
        Some(_) => "FAILED",
        None if feature == "resume" && matches!(line.behind, Behind::Stdio { .. }) => {
            "not offered by stdio"
        }
        None if offered && !driver.takes(feature) => "not offered by the client",
        None if feature == "resume" && offered && !line.resumes(driver, route) => {
            if route == Route::Stdio { "not offered by stdio" } else { "not offered by 2026-07-28" }
        }
        None if !offered => "not offered by the server",
        None => "FAILED",
    }
    .to_owned()
}
