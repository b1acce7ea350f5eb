//! What more sessions cost: busy ones, and ones that rest.

use std::time::Duration;

use super::versus_first;
use crate::client::Client;
use crate::config::Options;
use crate::load;
use crate::memory::{self, Rest};
use crate::payload::Payload;
use crate::place::Place;
use crate::process;
use crate::table::{markdown, right};
use crate::ways::{BASE, Cell, Way};

pub async fn run(slot: Duration, idle: usize) {
    let mut table =
        markdown(&["busy sessions", "calls/s", "p50 ms", "p99 ms", "CPU µs/call", "RSS MB"]);
    let place = Place::open(&Options::default()).await;
    let fresh = process::resident(place.server.pid()).unwrap_or_default();
    table.add_row(["0", "", "", "", "", &format!("{fresh:.1}")]);
    let mut clients = Vec::new();
    let mut tallies = Vec::new();
    let mut first = None;
    for sessions in [1, 32, 256] {
        let more = sessions - clients.len();
        clients.extend(load::open(&place, Way::Gateway, BASE, more).await);
        let cell = Cell { route: BASE, payload: Payload::Plain, sessions, way: Way::Gateway };
        let tally = load::slot(&place, &mut clients, cell, slot).await;
        let figure = |figure: Option<f64>| figure.unwrap_or_default();
        let cpu = figure(tally.proxy_cpu());
        table.add_row([
            sessions.to_string(),
            format!("{:.0}", figure(tally.rate())),
            format!("{:.2}", figure(tally.percentile(50))),
            format!("{:.2}", figure(tally.percentile(99))),
            versus_first(first, cpu, 0),
            format!("{:.1}", figure(tally.resident)),
        ]);
        first = first.or(Some(cpu));
        tallies.push(tally);
    }
    futures_util::future::join_all(clients.into_iter().map(Client::close)).await;
    right(&mut table, 0);
    println!("{}\n{table}\n", place.close(load::calls(&tallies)));

    let mut table =
        markdown(&["resting sessions", "stream", "RSS MB before", "RSS MB with", "kB each"]);
    for sessions in [idle / 10, idle].into_iter().filter(|sessions| *sessions > 0) {
        for rest in [Rest::Silent, Rest::Listening] {
            let rested = memory::rest(sessions, rest).await;
            table.add_row([
                rested.sessions.to_string(),
                (if rest == Rest::Listening { "open" } else { "none" }).to_owned(),
                format!("{:.1}", rested.before),
                format!("{:.1}", rested.with),
                format!("{:.1}", (rested.with - rested.before) * 1e3 / rested.sessions as f64),
            ]);
        }
    }
    right(&mut table, 0);
    println!("{table}");
}
