//! One slot, and what slots of the same kind add up to.

use std::time::{Duration, Instant};

use super::client::Client;
use super::journal::Commits;
use super::payload::Payload;
use super::place::{Place, Way};

/// What the slots of one way, payload and number of sessions came to.
pub struct Tally {
    pub way: Way,
    pub payload: Payload,
    pub sessions: usize,
    /// How long each measured call took.
    pub latencies: Vec<Duration>,
    pub elapsed: Duration,
    pub cpu: Option<Duration>,
    pub commits: Commits,
    /// At the end of the last slot, in MiB.
    pub resident: Option<f64>,
    /// Calls that were made before the clock ran.
    unmeasured: u64,
}

impl Tally {
    pub fn is(&self, way: Way, payload: Payload, sessions: usize) -> bool {
        self.way == way && self.payload == payload && self.sessions == sessions
    }

    pub fn add(&mut self, slot: Self) {
        self.latencies.extend(slot.latencies);
        self.elapsed += slot.elapsed;
        self.cpu = self.cpu.zip(slot.cpu).map(|(a, b)| a + b);
        self.commits.frames += slot.commits.frames;
        self.commits.entries += slot.commits.entries;
        self.resident = slot.resident;
        self.unmeasured += slot.unmeasured;
    }
}

/// How many calls there were, measured or not.
pub fn calls(tallies: &[Tally]) -> u64 {
    tallies.iter().map(|tally| tally.latencies.len() as u64 + tally.unmeasured).sum()
}

/// Lets every client call for `length`, one call after the other.
pub async fn slot(
    place: &Place,
    clients: &mut Vec<Client>,
    sessions: usize,
    way: Way,
    payload: Payload,
    length: Duration,
) -> Tally {
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
    let cpu = place.cpu(way);
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
    let cpu = place.cpu(way).zip(cpu).map(|(after, before)| after - before);
    let commits = place.commits();
    clients.splice(..0, back);
    let resident = place.resident(way);
    Tally { way, payload, sessions, latencies, elapsed, cpu, commits, resident, unmeasured }
}
