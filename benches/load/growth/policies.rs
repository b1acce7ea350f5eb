//! What more policies cost a call, and the start.

use std::time::Duration;

use super::versus_first;
use crate::client::Client;
use crate::config::Options;
use crate::load::{self, Tally};
use crate::payload::Payload;
use crate::place::Place;
use crate::process;
use crate::table::{markdown, right};
use crate::ways::{BASE, Cell, Way};

pub async fn run(slot: Duration) {
    let mut table = markdown(&[
        "policies",
        "start ms",
        "RSS MB",
        "p50 ms, 1 session",
        "calls/s, 32 sessions",
        "CPU µs/call, 32 sessions",
    ]);
    let mut first: Option<[f64; 3]> = None;
    for policies in [50, 500, 5000] {
        let place = Place::open(&Options { policies, ..Options::default() }).await;
        let resident = process::resident(place.server.pid()).unwrap_or_default();
        let mut clients = load::open(&place, Way::Gateway, BASE, 32).await;
        let cell =
            |sessions| Cell { route: BASE, payload: Payload::Plain, sessions, way: Way::Gateway };
        let alone = load::slot(&place, &mut clients, cell(1), slot).await;
        let many = load::slot(&place, &mut clients, cell(32), slot).await;
        futures_util::future::join_all(clients.into_iter().map(Client::close)).await;
        let figures = [alone.percentile(50), many.rate(), many.proxy_cpu()];
        let figures = figures.map(Option::unwrap_or_default);
        table.add_row([
            policies.to_string(),
            format!("{:.0}", place.server.started_in.as_secs_f64() * 1e3),
            format!("{resident:.1}"),
            versus_first(first.map(|first| first[0]), figures[0], 2),
            versus_first(first.map(|first| first[1]), figures[1], 0),
            versus_first(first.map(|first| first[2]), figures[2], 0),
        ]);
        first = first.or(Some(figures));
        let tallies: [Tally; 2] = [alone, many];
        println!("{policies}: {}", place.close(load::calls(&tallies)));
    }
    right(&mut table, 0);
    println!("{table}");
}
