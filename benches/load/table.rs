//! The figures, printed: each as it is, and as a multiple of the direct way's in the same run.

use std::time::Duration;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use super::load::Tally;
use super::place::Way;

pub fn print(tallies: &[Tally]) {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "sessions",
        "answer",
        "way",
        "calls",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "CPU ms/call",
        "RSS MiB",
        "records/call",
        "syncs/call",
    ]);
    for tally in tallies {
        let direct = tallies.iter().find(|t| t.is(Way::Direct, tally.payload, tally.sessions));
        let versus = |figure: fn(&Tally) -> Option<f64>, digits: usize| {
            let Some(own) = figure(tally) else { return "-".to_owned() };
            let base = direct.filter(|_| tally.way != Way::Direct).and_then(figure);
            match base.filter(|base| *base > 0.0) {
                Some(base) => format!("{own:.digits$} ({:.2}x)", own / base),
                None => format!("{own:.digits$}"),
            }
        };
        let calls = tally.latencies.len() as f64;
        let recorded = |count: u64| match tally.way {
            Way::Direct => "-".to_owned(),
            _ => format!("{:.2}", count as f64 / calls),
        };
        table.add_row([
            tally.sessions.to_string(),
            tally.payload.name().to_owned(),
            tally.way.name().to_owned(),
            tally.latencies.len().to_string(),
            versus(rate, 0),
            versus(|tally| percentile(tally, 50), 2),
            versus(|tally| percentile(tally, 99), 2),
            versus(cpu, 3),
            versus(|tally| tally.resident, 1),
            recorded(tally.commits.entries),
            recorded(tally.commits.frames),
        ]);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    println!(
        "CPU: every process from the local port to the tool, the tool's server included. \
         RSS: mcpx's processes; for direct, the tool's server.\n\
         syncs: group commits of the audit log, each written and synced once."
    );
}

fn rate(tally: &Tally) -> Option<f64> {
    Some(tally.latencies.len() as f64 / tally.elapsed.as_secs_f64())
}

fn percentile(tally: &Tally, percent: usize) -> Option<f64> {
    let mut sorted = tally.latencies.clone();
    sorted.sort_unstable();
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).map(milliseconds)
}

fn cpu(tally: &Tally) -> Option<f64> {
    Some(milliseconds(&tally.cpu?) / tally.latencies.len() as f64)
}

fn milliseconds(duration: &Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
