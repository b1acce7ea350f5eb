//! What the server keeps in memory: for sessions that call, for sessions that rest, and while a
//! large result passes.

use std::time::Duration;

use super::client::Client;
use super::config::Options;
use super::load;
use super::payload::Payload;
use super::place::Place;
use super::process;
use super::targets::Line;
use super::ways::{BASE, Cell, Way};

/// What the server keeps with so many sessions that call, and none besides.
pub async fn busy(sessions: usize) -> Line {
    let place = Place::open(&Options::default()).await;
    let before = process::resident(place.server.pid()).unwrap_or_default();
    let mut clients = load::open(&place, Way::Gateway, BASE, sessions).await;
    let mut tallies = Vec::new();
    for payload in [Payload::Plain, Payload::Sparse] {
        let cell = Cell { route: BASE, payload, sessions, way: Way::Gateway };
        tallies.push(load::slot(&place, &mut clients, cell, BUSY).await);
    }
    let most = tallies.iter().filter_map(|tally| tally.resident).fold(0.0, f64::max);
    println!("{}", place.close(load::calls(&tallies)));
    let what = format!("RSS with {sessions} busy sessions, 200 and 10k: {before:.1} MB before");
    Line::at_most(what, 64.0, most, " MB")
}

const BUSY: Duration = Duration::from_secs(5);

/// Whether sessions that rest listen meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Nothing is open: the client was heard of, and may come back.
    Silent,
    /// Each holds its listening stream (GET) open, through the gateway to the MCP server.
    Listening,
}

/// What resting sessions came to.
pub struct Rested {
    pub sessions: usize,
    pub rest: Rest,
    /// In MB: the server's process before the first of them, and with all of them.
    pub before: f64,
    pub with: f64,
}

/// Opens so many initialized sessions, each under a grant of its own, and leaves them alone; fewer
/// listening ones where the system does not allow as many open files.
pub async fn rest(sessions: usize, rest: Rest) -> Rested {
    // A stream is two sockets of the gateway.
    let files = process::raise_open_files(sessions as u64 * 2 + SPARE);
    let most = usize::try_from((files.saturating_sub(SPARE)) / 2).unwrap_or(usize::MAX);
    let sessions = if rest == Rest::Listening { sessions.min(most) } else { sessions };
    let place = Place::open(&Options::default()).await;
    let resident = || process::resident(place.server.pid()).unwrap_or_default();
    let before = resident();
    let mut streams = Vec::new();
    for batch in (0..sessions).step_by(AT_A_TIME) {
        let opening = (batch..sessions.min(batch + AT_A_TIME)).map(async |_| {
            let client = Client::open(&place, Way::Gateway, BASE).await;
            match rest {
                Rest::Silent => None,
                Rest::Listening => Some(client.listen().await),
            }
        });
        streams.extend(futures_util::future::join_all(opening).await);
    }
    let with = resident();
    drop(streams);
    println!("{}", place.close(0));
    Rested { sessions, rest, before, with }
}

/// Files that are open besides the sockets of sessions.
const SPARE: u64 = 512;
const AT_A_TIME: usize = 64;

impl Rested {
    pub fn line(&self, limit: f64) -> Line {
        let Self { sessions, before, with, .. } = self;
        let how = match self.rest {
            Rest::Silent => "idle sessions, no stream open",
            Rest::Listening => "idle sessions, each with its listening stream",
        };
        let each = (with - before) * 1000.0 / *sessions as f64;
        let what = format!("RSS with {sessions} {how}: {before:.1} MB before, {each:.1} kB each");
        Line::at_most(what, limit, *with, " MB")
    }
}

/// What a 16 MB result costs while it passes.
pub async fn huge() -> Line {
    let options = Options { message_bytes: Some(16 << 20), ..Options::default() };
    let place = Place::open(&options).await;
    let mut client = Client::open(&place, Way::Gateway, BASE).await;
    client.learn(Payload::Plain, Way::Gateway).await;
    let pid = place.server.pid();
    let before = process::resident(pid).unwrap_or_default();
    let reset = process::reset_peak(pid);
    let learnt = client.learn(Payload::Huge, Way::Gateway).await;
    let first = process::peak(pid).unwrap_or_default() - before;
    for _ in 1..TIMES {
        client.call(&learnt).await;
    }
    let peak = process::peak(pid).unwrap_or_default() - before;
    println!("{}", place.close(1 + TIMES));
    let size = Payload::Huge.result().len() as f64 / 1e6;
    let since = if reset { "" } else { " since the start" };
    let what = format!(
        "a {size:.0} MB result: peak RSS{since} above the {before:.1} MB before; {first:.0} MB for \
         the first, {peak:.0} MB for {TIMES}, one after the other"
    );
    Line::at_most(what, 3.0, first.max(peak) / size, " x its size")
}

const TIMES: u64 = 3;
