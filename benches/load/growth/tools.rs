//! What a longer `tools/list` costs: cold, when each definition is seen and pinned for the first
//! time, and warm, when each is compared with its pin.

use std::time::{Duration, Instant};

use crate::answers::{envelope, list};
use crate::client::Client;
use crate::config::{Options, tools_connection};
use crate::place::Place;
use crate::table::{markdown, right};
use crate::ways::{BASE, Reach, Way};

const TOOLS: [usize; 3] = [10, 100, 1000];

pub async fn run(slot: Duration) {
    let mut table = markdown(&[
        "tools",
        "answer kB",
        "cold ms",
        "cold CPU ms",
        "warm p50 ms",
        "warm CPU ms/list",
        "direct p50 ms",
        "records, cold",
        "records, warm",
    ]);
    let place = Place::open(&Options { tools: TOOLS.to_vec(), ..Options::default() }).await;
    for tools in TOOLS {
        let (name, path) = (tools_connection(tools), format!("/mcp/{tools}"));
        let expected = list(tools);
        let mut direct = Client::open_to(&place, Way::Direct, BASE, &name, &path).await;
        let mut gateway = Client::open_to(&place, Way::Gateway, BASE, &name, &path).await;
        let (straight, _) = repeat(&mut direct, &expected, slot).await;

        place.commits();
        let before = cpu(&place);
        let begun = Instant::now();
        ask(&mut gateway, &expected).await;
        let cold = begun.elapsed();
        let cold_cpu = cpu(&place).saturating_sub(before);
        let cold_records = place.commits().entries;

        let before = cpu(&place);
        let (warm, lists) = repeat(&mut gateway, &expected, slot).await;
        let warm_cpu = cpu(&place).saturating_sub(before).as_secs_f64() / lists as f64;
        let warm_records = place.commits().entries as f64 / lists as f64;
        table.add_row([
            tools.to_string(),
            format!("{:.1}", expected.len() as f64 / 1e3),
            format!("{:.1}", milliseconds(cold)),
            // The clock of a process with threads ticks in steps of 10 ms.
            format!("{:.0}", milliseconds(cold_cpu)),
            format!("{:.2}", milliseconds(warm)),
            format!("{:.2}", warm_cpu * 1e3),
            format!("{:.2}", milliseconds(straight)),
            cold_records.to_string(),
            format!("{warm_records:.1}"),
        ]);
    }
    right(&mut table, 0);
    println!("{}\n{table}", place.close(0));
}

fn cpu(place: &Place) -> Duration {
    place.cpu(Way::Gateway, Reach::Http).map(|cpu| cpu.proxy).unwrap_or_default()
}

/// Lists for so long, one list after the other: the median, and how many.
async fn repeat(client: &mut Client, expected: &str, length: Duration) -> (Duration, usize) {
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed() < length || times.is_empty() {
        let sent = Instant::now();
        ask(client, expected).await;
        times.push(sent.elapsed());
    }
    times.sort_unstable();
    (times[times.len() / 2], times.len())
}

/// Nothing in these definitions is hidden or masked, so nothing may be changed.
async fn ask(client: &mut Client, expected: &str) {
    let (id, answer) = client.list_tools().await;
    assert!(answer == envelope(id, expected), "not the list: {answer}");
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
