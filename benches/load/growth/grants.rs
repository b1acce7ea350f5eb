//! How many grants a second the control server gives, with so many askers at a time. Each asks for a
//! grant of its own, bound to a key of its own, with one person's identity token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::versus_first;
use crate::config::Options;
use crate::place::Place;
use crate::process;
use crate::table::{markdown, right};

pub async fn run(slot: Duration) {
    let place = Place::open(&Options::default()).await;
    let asker = Arc::new(place.asker().await);
    let mut table = markdown(&["askers", "grants/s", "p50 ms", "p99 ms", "CPU µs/grant"]);
    let mut first = None;
    for askers in [1, 32, 256] {
        let cpu = || process::cpu(place.server.pid()).unwrap_or_default();
        let (before, begun) = (cpu(), Instant::now());
        let asking = (0..askers).map(|_| {
            let asker = Arc::clone(&asker);
            tokio::spawn(async move {
                let mut times = Vec::new();
                while begun.elapsed() < slot {
                    let asked = Instant::now();
                    asker.ask().await;
                    times.push(asked.elapsed());
                }
                times
            })
        });
        let times = futures_util::future::join_all(asking).await;
        let took = begun.elapsed();
        let mut times: Vec<Duration> =
            times.into_iter().flat_map(|of| of.expect("asked")).collect();
        times.sort_unstable();
        let count = times.len() as f64;
        let at = |share: usize| {
            let place = (times.len() * share / 100).min(times.len() - 1);
            format!("{:.2}", times[place].as_secs_f64() * 1e3)
        };
        let rate = count / took.as_secs_f64();
        table.add_row([
            askers.to_string(),
            versus_first(first, rate, 0),
            at(50),
            at(99),
            format!("{:.0}", (cpu() - before).as_secs_f64() * 1e6 / count),
        ]);
        first = first.or(Some(rate));
    }
    right(&mut table, 0);
    println!("{}\n{table}", place.close(0));
}
