//! What a call through mcpx costs, next to the same call without it.
//!
//! Closed loop: N sessions, each with one call under way at a time, against a fast MCP server, in
//! turns straight, through `mcpx serve`, and through `mcpx connect` and `mcpx serve`. Everything
//! runs as processes of its own on loopback, and every reply is compared with what it must be, byte
//! by byte. Nothing here fails for being slow.
//!
//! `cargo bench --bench load`, with `-- --quick` for a short look; `docs/benchmarks.md` says how
//! to read the figures.
//!
//! | file | owns |
//! |---|---|
//! | [`upstream`] | the MCP server, a process of its own |
//! | [`payload`] | its answers, and what they must look like once masked |
//! | [`place`] | configuration, server process, login |
//! | [`client`] | one session's calls and the check of each reply |
//! | [`load`] | one slot: so many sessions, one way, one payload, some time |
//! | [`process`] | what `/proc` tells of a process; how it ends |
//! | [`journal`] | how many syncs the audit log made |
//! | [`startup`] | how long the command line takes to start |
//! | [`table`] | the figures, printed |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs,
    reason = "a bench that cannot run has nothing else to say"
)]

mod client;
mod journal;
mod load;
mod payload;
mod place;
mod process;
mod startup;
mod table;
mod upstream;

use std::time::{Duration, Instant};

use self::client::Client;
use self::load::Tally;
use self::payload::{PAYLOADS, Payload};
use self::place::{Place, WAYS, Way};

/// What is asked for.
struct Wanted {
    sessions: Vec<usize>,
    budget: Duration,
    rounds: u32,
    payloads: Vec<Payload>,
    ways: Vec<Way>,
    startups: usize,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "upstream") {
        return upstream::main();
    }
    // `cargo test --all-targets` runs benches as well, without this.
    if !args.iter().any(|arg| arg == "--bench") {
        println!("run me with: cargo bench --bench load");
        return;
    }
    let Some(wanted) = Wanted::read(&args) else {
        println!("{USAGE}");
        return;
    };
    tokio::runtime::Runtime::new().expect("a runtime").block_on(run(&wanted));
}

const USAGE: &str = "cargo bench --bench load -- [--quick] [--sessions 1,8,64] [--seconds 60] \
                     [--rounds 2] [--payloads 2k,10k,2k-sse] [--ways direct,gateway,connect] \
                     [--startups 10]";

impl Wanted {
    fn read(args: &[String]) -> Option<Self> {
        let quick = args.iter().any(|arg| arg == "--quick");
        let mut wanted = Self {
            sessions: if quick { vec![1, 8] } else { vec![1, 8, 64] },
            budget: Duration::from_secs(if quick { 15 } else { 60 }),
            rounds: 2,
            payloads: PAYLOADS.to_vec(),
            ways: WAYS.to_vec(),
            startups: if quick { 5 } else { 10 },
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" | "--quick" => {}
                "--sessions" => {
                    wanted.sessions =
                        args.next()?.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?;
                }
                "--seconds" => wanted.budget = Duration::from_secs(args.next()?.parse().ok()?),
                "--rounds" => wanted.rounds = args.next()?.parse().ok().filter(|n| *n > 0)?,
                "--startups" => wanted.startups = args.next()?.parse().ok()?,
                "--payloads" => wanted.payloads = chosen(&PAYLOADS, args.next()?, Payload::name)?,
                "--ways" => wanted.ways = chosen(&WAYS, args.next()?, Way::name)?,
                _ => return None,
            }
        }
        Some(wanted)
    }
}

fn chosen<T: Copy>(all: &[T], names: &str, name: impl Fn(T) -> &'static str) -> Option<Vec<T>> {
    names.split(',').map(|wanted| all.iter().copied().find(|item| name(*item) == wanted)).collect()
}

async fn run(wanted: &Wanted) {
    let begun = Instant::now();
    let place = Place::open().await;
    println!("{}", place.describe());
    println!("{}\n", startup::measure(&place, wanted.startups).await);

    let most = wanted.sessions.iter().copied().max().unwrap_or(1);
    let mut clients = Vec::new();
    for way in &wanted.ways {
        let opening = (0..most).map(|_| Client::open(&place, *way));
        clients.push((*way, futures_util::future::join_all(opening).await));
    }

    let cells = wanted.sessions.len() * wanted.payloads.len() * wanted.ways.len();
    let slots = u32::try_from(cells).expect("few cells") * wanted.rounds;
    let left = wanted.budget.saturating_sub(begun.elapsed());
    // Connecting, warming up and reading the journal take a part of each slot.
    let each = (left * 8 / 10 / slots.max(1)).max(SHORTEST);
    println!("{slots} slots of {each:.2?}, in turns: {}", names(&wanted.ways));
    let mut tallies: Vec<Tally> = Vec::new();
    for _ in 0..wanted.rounds {
        for sessions in &wanted.sessions {
            for payload in &wanted.payloads {
                for (way, clients) in &mut clients {
                    let slot = load::slot(&place, clients, *sessions, *way, *payload, each).await;
                    match tallies.iter_mut().find(|tally| tally.is(*way, *payload, *sessions)) {
                        Some(tally) => tally.add(slot),
                        None => tallies.push(slot),
                    }
                }
            }
        }
    }
    drop(clients);
    table::print(&tallies);
    println!("{}", place.close(load::calls(&tallies)));
    println!("took {:.0?}", begun.elapsed());
}

fn names(ways: &[Way]) -> String {
    ways.iter().map(|way| way.name()).collect::<Vec<_>>().join(", ")
}

/// A slot that is shorter says nothing.
const SHORTEST: Duration = Duration::from_millis(200);
