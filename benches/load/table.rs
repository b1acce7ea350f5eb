//! The figures, printed: each as it is, and as a multiple of the direct way's or nginx's in the
//! same run.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use super::load::Tally;
use super::ways::{Cell, Way};

/// The tally of the same cell on another way.
pub fn on(tallies: &[Tally], way: Way, cell: Cell) -> Option<&Tally> {
    tallies.iter().find(|tally| tally.cell == Cell { way, ..cell })
}

pub fn print(tallies: &[Tally]) {
    let mut table = markdown(&[
        "route",
        "answer",
        "sessions",
        "way",
        "calls",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "CPU µs/call, all",
        "proxy's",
        "RSS MB",
        "records/call",
        "syncs/call",
    ]);
    for tally in tallies {
        let direct = on(tallies, Way::Direct, tally.cell);
        let nginx = on(tallies, Way::Nginx, tally.cell);
        let calls = tally.latencies.len() as f64;
        let recorded = |count: u64| match tally.cell.way.is_ours() {
            true => format!("{:.2}", count as f64 / calls),
            false => String::new(),
        };
        table.add_row([
            tally.cell.route.name().to_owned(),
            tally.cell.payload.name().to_owned(),
            tally.cell.sessions.to_string(),
            tally.cell.way.name().to_owned(),
            tally.latencies.len().to_string(),
            versus(tally, direct, Tally::rate, 0),
            versus(tally, direct, |tally| tally.percentile(50), 2),
            versus(tally, direct, |tally| tally.percentile(99), 2),
            versus(tally, direct, Tally::cpu, 0),
            versus(tally, nginx, Tally::proxy_cpu, 0),
            tally.resident.map_or_else(String::new, |mb| format!("{mb:.1}")),
            recorded(tally.commits.entries),
            recorded(tally.commits.frames),
        ]);
    }
    right(&mut table, 4);
    println!("{table}");
    println!(
        "In brackets: calls/s, latency and CPU of all, as a multiple of direct; the proxy's CPU, \
         of nginx's.\n\
         all: every process from the client's port to the tool, the tool's server included. \
         proxy's: what stands between.\n\
         RSS: the proxy's processes; for direct, the tool's server. \
         syncs: group commits of the audit log, each written and synced once."
    );
}

/// A figure, and in brackets as a multiple of another tally's.
fn versus(
    tally: &Tally,
    base: Option<&Tally>,
    figure: impl Fn(&Tally) -> Option<f64>,
    digits: usize,
) -> String {
    let Some(own) = figure(tally) else { return String::new() };
    let base = base.filter(|base| base.cell != tally.cell).and_then(figure);
    match base.filter(|base| *base > 0.0) {
        Some(base) => format!("{own:.digits$} ({:.2}x)", own / base),
        None => format!("{own:.digits$}"),
    }
}

/// A table that can be pasted into a page.
pub fn markdown(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    table
}

/// Aligns the columns from one on to the right.
pub fn right(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
