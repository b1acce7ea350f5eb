//! What a call through mcpx costs, next to the same call without it.
//!
//! Closed loop: N sessions, each with one call under way at a time, against a fast MCP server, in
//! turns straight, through nginx, through `mcpx serve`, and through `mcpx connect` and `mcpx
//! serve`. Everything runs as processes of its own on loopback, and every reply is compared with
//! what it must be, byte by byte. Nothing here fails for being slow.
//!
//! `cargo bench --bench load`, with `-- --quick` for a short look; `docs/performance.md` says what
//! is wanted and how to read the figures.
//!
//! | file | owns |
//! |---|---|
//! | [`wanted`] | what is asked for on the command line |
//! | [`ways`] | ways, eras, transports |
//! | [`answers`], [`payload`] | what the MCP server answers, and how that must look once masked |
//! | [`upstream`], [`child`] | the MCP server over HTTP and on stdio |
//! | [`config`], [`policies`] | what the gateway is configured with |
//! | [`server`], [`nginx`], [`login`], [`place`] | the processes, and one person's login |
//! | [`client`] | one session's calls and the check of each reply |
//! | [`load`] | one slot: so many sessions, one way, one payload, some time |
//! | [`memory`] | busy and resting sessions, a large result |
//! | [`growth`] | what grows with policies, tools, sessions and log |
//! | [`process`] | what `/proc` tells of a process; how it ends |
//! | [`tls`] | certificates, for a run with `--bound cert` |
//! | [`journal`] | how many syncs the audit log made |
//! | [`startup`] | how long the command line takes to start |
//! | [`table`], [`targets`] | the figures, printed |
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

mod answers;
mod child;
mod client;
mod config;
mod growth;
mod journal;
mod load;
mod login;
mod memory;
mod nginx;
mod payload;
mod place;
mod policies;
mod process;
mod server;
mod startup;
mod table;
mod targets;
mod tls;
mod upstream;
mod wanted;
mod ways;

use std::time::{Duration, Instant};

use self::client::Client;
use self::config::Options;
use self::load::Tally;
use self::memory::Rest;
use self::nginx::Nginx;
use self::place::Place;
use self::wanted::{USAGE, Wanted};
use self::ways::{Bound, Cell, Reach, Route, Way};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some(upstream::ARGUMENT) => return upstream::main(),
        Some(child::ARGUMENT) => return child::main(args[1].as_ref()),
        _ => {}
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
    if wanted.bound.contains(&Bound::Certificate) && !tls::is_trusted() {
        assert!(tls::start_again(), "the run over TLS failed");
        return;
    }
    process::raise_open_files(8192);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        match wanted.growth {
            Some(growth) => growth::run(growth, &wanted).await,
            None => {
                for bound in &wanted.bound {
                    run(&wanted, *bound).await;
                }
            }
        }
    });
}

async fn run(wanted: &Wanted, bound: Bound) {
    let begun = Instant::now();
    println!("tokens are bound to {}", bound.describe());
    let nginx = Nginx::version();
    match &nginx {
        Some(version) => println!("{version}"),
        None => println!("there is no nginx here, so that way is left out (Debian: nginx-light)"),
    }
    let cells = wanted.cells(nginx.is_some());
    let uses = |way: Way| cells.iter().any(|cell| cell.way == way);
    let connects = [Reach::Http, Reach::Stdio].into_iter().filter(|reach| {
        cells.iter().any(|cell| cell.way == Way::Connect && cell.route.reach == *reach)
    });
    let (connects, nginx) = (connects.collect(), uses(Way::Nginx));
    let options = Options { connects, nginx, bound, ..Options::default() };
    let place = Place::open(&options).await;
    println!("{}", describe(&place));
    println!("{}\n", startup::measure(&place, wanted.startups).await);

    let (tallies, sync) = measure(&place, &cells, wanted).await;
    table::print(&tallies);
    println!("{}", place.close(load::calls(&tallies)));

    let mut lines = targets::of_table(&tallies, sync);
    if wanted.idle > 0 && bound == Bound::Key {
        lines.push(memory::busy(256).await);
        lines.push(memory::rest(wanted.idle, Rest::Silent).await.line(IDLE_LIMIT));
        lines.push(memory::rest(wanted.idle, Rest::Listening).await.line(IDLE_LIMIT));
        lines.push(memory::huge().await);
    }
    targets::print(&lines);
    println!("took {:.0?}", begun.elapsed());
}

/// In MB, with 10,000 of them.
const IDLE_LIMIT: f64 = 250.0;

/// All slots, in turns, and what a sync cost meanwhile.
async fn measure(place: &Place, cells: &[Cell], wanted: &Wanted) -> (Vec<Tally>, Duration) {
    let mut clients: Vec<(Way, Route, Vec<Client>)> = Vec::new();
    for Cell { way, route, .. } in cells {
        if clients.iter().any(|(w, r, _)| w == way && r == route) {
            continue;
        }
        let of_this = cells.iter().filter(|cell| cell.way == *way && cell.route == *route);
        let most = of_this.map(|cell| cell.sessions).max().unwrap_or(1);
        clients.push((*way, *route, load::open(place, *way, *route, most).await));
    }
    let slots = u32::try_from(cells.len()).expect("few cells") * wanted.rounds;
    // Connecting, warming up and reading the journal take a part of each slot.
    let each = (wanted.budget * 8 / 10 / slots.max(1)).max(SHORTEST);
    println!("{slots} slots of {each:.2?}, the ways in turns");
    let mut tallies: Vec<Tally> = Vec::new();
    let mut syncs = Vec::new();
    for _ in 0..wanted.rounds {
        for cell in cells {
            if cell.sessions == 1 && cell.way == Way::Gateway {
                syncs.extend(place.syncs(50));
            }
            let found = clients.iter_mut().find(|(w, r, _)| *w == cell.way && *r == cell.route);
            let (_, _, clients) = found.expect("opened above");
            let slot = load::slot(place, clients, *cell, each).await;
            match tallies.iter_mut().find(|tally| tally.cell == *cell) {
                Some(tally) => tally.add(slot),
                None => tallies.push(slot),
            }
        }
    }
    let all = clients.into_iter().flat_map(|(_, _, clients)| clients);
    futures_util::future::join_all(all.map(Client::close)).await;
    syncs.sort_unstable();
    let sync = syncs.get(syncs.len() / 2).copied().unwrap_or_default();
    println!("fdatasync of 4 KiB next to the slots of one session: p50 {sync:.2?}");
    (tallies, sync)
}

/// A slot that is shorter says nothing.
const SHORTEST: Duration = Duration::from_millis(200);

/// Machine and disk, which the figures depend on.
fn describe(place: &Place) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let syncs = place.syncs(100);
    let parent = place.folder().parent().unwrap_or(place.folder());
    let (median, p99) = (syncs[syncs.len() / 2], syncs[syncs.len() * 99 / 100]);
    format!(
        "{cores} cores; {} policies; fdatasync of 4 KiB in {}: p50 {median:.2?}, p99 {p99:.2?}",
        config::POLICIES,
        parent.display(),
    )
}
