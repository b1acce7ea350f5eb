//! One slot, and what slots of the same kind add up to.

use std::time::{Duration, Instant};

use super::client::Client;
use super::journal::Commits;
use super::place::{Cpu, Place};
use super::ways::{Cell, Route, Way};

/// What the slots of one cell came to.
pub struct Tally {
    pub cell: Cell,
    /// How long each measured call took.
    pub latencies: Vec<Duration>,
    pub elapsed: Duration,
    pub cpu: Option<Cpu>,
    pub commits: Commits,
    /// At the end of the last slot, in MB.
    pub resident: Option<f64>,
    /// Calls that were made before the clock ran.
    unmeasured: u64,
}

impl Tally {
    pub fn add(&mut self, slot: Self) {
        self.latencies.extend(slot.latencies);
        self.elapsed += slot.elapsed;
        let sum = |(a, b): (Cpu, Cpu)| Cpu { all: a.all + b.all, proxy: a.proxy + b.proxy };
        self.cpu = self.cpu.zip(slot.cpu).map(sum);
        self.commits.frames += slot.commits.frames;
        self.commits.entries += slot.commits.entries;
        self.resident = slot.resident;
        self.unmeasured += slot.unmeasured;
    }

    /// Calls a second.
    pub fn rate(&self) -> Option<f64> {
        Some(self.latencies.len() as f64 / self.elapsed.as_secs_f64())
    }

    /// In milliseconds.
    pub fn percentile(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(at).map(|latency| latency.as_secs_f64() * 1e3)
    }

    /// Processor time per call of every process on the way, in µs.
    pub fn cpu(&self) -> Option<f64> {
        Some(self.cpu?.all.as_secs_f64() * 1e6 / self.latencies.len() as f64)
    }

    /// That of what stands between client and upstream.
    pub fn proxy_cpu(&self) -> Option<f64> {
        let proxy = self.cpu.filter(|_| self.cell.way != Way::Direct)?.proxy;
        Some(proxy.as_secs_f64() * 1e6 / self.latencies.len() as f64)
    }
}

/// How many calls there were, measured or not.
pub fn calls<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> u64 {
    tallies.into_iter().map(|tally| tally.latencies.len() as u64 + tally.unmeasured).sum()
}

/// Sessions that are kept for many slots.
pub async fn open(place: &Place, way: Way, route: Route, sessions: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    while clients.len() < sessions {
        // So many at a time: each login is taken from one file, under a lock.
        let more = (sessions - clients.len()).min(64);
        let opening = (0..more).map(|_| Client::open(place, way, route));
        clients.extend(futures_util::future::join_all(opening).await);
    }
    clients
}

/// Lets every client call for `length`, one call after the other.
pub async fn slot(place: &Place, clients: &mut Vec<Client>, cell: Cell, length: Duration) -> Tally {
    let Cell { route, payload, sessions, way } = cell;
    let mut used: Vec<Client> = clients.drain(..sessions).collect();
    let (first, others) = used.split_first_mut().expect("a session");
    first.reconnect().await;
    let expected = first.learn(payload, way).await;
    let warm_up = others.iter_mut().map(async |client| {
        client.reconnect().await;
        client.call(&expected).await;
    });
    futures_util::future::join_all(warm_up).await;
    let unmeasured = used.len() as u64;

    // Entries of others' slots, and of the calls above, do not count.
    place.commits();
    let cpu = place.cpu(way, route.reach);
    let begun = Instant::now();
    let running: Vec<_> = used
        .into_iter()
        .map(|mut client| {
            let expected = expected.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while begun.elapsed() < length {
                    let sent = Instant::now();
                    client.call(&expected).await;
                    latencies.push(sent.elapsed());
                }
                (client, latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    let mut back = Vec::new();
    for session in running {
        let (client, own) = session.await.expect("every answer is as it must be");
        latencies.extend(own);
        back.push(client);
    }
    let elapsed = begun.elapsed();
    let cpu = place.cpu(way, route.reach).zip(cpu).map(|(after, before)| Cpu {
        all: after.all.saturating_sub(before.all),
        proxy: after.proxy.saturating_sub(before.proxy),
    });
    let commits = place.commits();
    clients.splice(..0, back);
    let resident = place.resident(way, route.reach);
    Tally { cell, latencies, elapsed, cpu, commits, resident, unmeasured }
}
