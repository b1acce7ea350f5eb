//! What mcpx is meant to reach, next to what it reached in this run. Nothing fails for a miss.

use std::time::Duration;

use super::load::Tally;
use super::payload::Payload;
use super::table::{markdown, on, right};
use super::ways::{BASE, Cell, Way};

/// One target's line.
pub struct Line {
    pub what: String,
    pub target: String,
    pub figure: String,
    pub met: bool,
    /// Whether the figure cannot be: something else ran while it was taken.
    void: bool,
}

impl Line {
    pub fn at_most(what: impl Into<String>, limit: f64, figure: f64, unit: &str) -> Self {
        let target = format!("at most {limit}{unit}");
        let figure_text = format!("{figure:.2}{unit}");
        Self {
            what: what.into(),
            target,
            figure: figure_text,
            met: figure <= limit,
            void: figure < 0.0,
        }
    }

    fn at_least(what: impl Into<String>, limit: f64, figure: f64, unit: &str) -> Self {
        let target = format!("at least {limit}{unit}");
        let figure_text = format!("{figure:.3}{unit}");
        Self { what: what.into(), target, figure: figure_text, met: figure >= limit, void: false }
    }
}

pub fn print(lines: &[Line]) {
    let mut table = markdown(&["target", "wanted", "measured", ""]);
    for line in lines {
        let met = match line {
            Line { void: true, .. } => "says nothing",
            Line { met: true, .. } => "met",
            _ => "missed",
        };
        table.add_row([line.what.as_str(), &line.target, &line.figure, met]);
    }
    right(&mut table, 1);
    println!("\n{table}");
}

/// The targets that the main table holds figures for; `sync` is the median of one `fdatasync`.
pub fn of_table(tallies: &[Tally], sync: Duration) -> Vec<Line> {
    let mut lines = Vec::new();
    let gateway = |payload, sessions| {
        let cell = Cell { route: BASE, payload, sessions, way: Way::Gateway };
        on(tallies, Way::Gateway, cell)
    };
    for (payload, limit) in [(Payload::Plain, 6.5), (Payload::Sparse, 5.5)] {
        let Some(tally) = gateway(payload, 32) else { continue };
        let nginx = on(tallies, Way::Nginx, tally.cell).and_then(Tally::proxy_cpu);
        if let Some((own, nginx)) = tally.proxy_cpu().zip(nginx.filter(|cpu| *cpu > 0.0)) {
            let what = format!(
                "CPU per call, {} at 32 sessions: {own:.0} µs; nginx {nginx:.0} µs",
                payload.name()
            );
            lines.push(Line::at_most(what, limit, own / nginx, " x nginx"));
        }
    }
    for (payload, limit) in [(Payload::Plain, 0.12), (Payload::Sparse, 0.20)] {
        for sessions in [32, 256] {
            let Some(tally) = gateway(payload, sessions) else { continue };
            let direct = on(tallies, Way::Direct, tally.cell).and_then(Tally::rate);
            if let Some((own, direct)) = tally.rate().zip(direct) {
                let what = format!(
                    "calls/s, {} at {sessions} sessions: {own:.0}; direct {direct:.0}",
                    payload.name()
                );
                lines.push(Line::at_least(what, limit, own / direct, " x direct"));
            }
        }
    }
    for payload in [Payload::Plain, Payload::Sparse] {
        let Some(tally) = gateway(payload, 1) else { continue };
        let direct = on(tallies, Way::Direct, tally.cell).and_then(|t| t.percentile(50));
        if let Some((own, direct)) = tally.percentile(50).zip(direct) {
            let sync = sync.as_secs_f64() * 1e3;
            let what = format!(
                "p50 of one session, {}: {own:.3} ms, less direct {direct:.3} and 2 syncs of \
                 {sync:.3}",
                payload.name()
            );
            lines.push(Line::at_most(what, 0.25, own - direct - 2.0 * sync, " ms"));
        }
    }
    lines
}
