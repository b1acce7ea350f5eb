//! What is asked for on the command line.

use std::time::Duration;

use super::growth::{GROWTHS, Growth};
use super::payload::Payload;
use super::ways::{BASE, BOUNDS, Bound, Cell, ROUTES, Route, WAYS, Way};

pub struct Wanted {
    sessions: Vec<usize>,
    payloads: Vec<Payload>,
    ways: Vec<Way>,
    /// Every combination of these; without it the base route in full, and one row for each
    /// variation.
    routes: Option<Vec<Route>>,
    pub budget: Duration,
    pub rounds: u32,
    pub startups: usize,
    /// How many sessions are opened and left alone; none skips what is measured of memory.
    pub idle: usize,
    pub growth: Option<Growth>,
    /// One run for each.
    pub bound: Vec<Bound>,
    /// How many records the log grows to.
    pub records: Vec<u64>,
}

pub const USAGE: &str = "\
cargo bench --bench load -- [--quick] [--sessions 1,32,256] [--seconds 120] [--rounds 2]
    [--payloads 200,10k,10k-dense,2k-sse,200-sse,2k-dense] [--ways direct,nginx,gateway,connect]
    [--routes legacy-http,modern-http,legacy-stdio,modern-stdio] [--startups 10] [--idle 10000]
    [--bound dpop,cert]
cargo bench --bench load -- --growth policies|tools|sessions|log [--seconds 60] [--idle 10000]
    [--records 10000,100000,1000000]";

const PAYLOADS: [Payload; 4] =
    [Payload::Plain, Payload::Sparse, Payload::Dense, Payload::DenseStream];

/// Of a variation, which is one row each.
const VARIED: [Payload; 2] = [Payload::Plain, Payload::PlainStream];
const VARIED_SESSIONS: usize = 32;

impl Wanted {
    pub fn read(args: &[String]) -> Option<Self> {
        let quick = args.iter().any(|arg| arg == "--quick");
        let mut wanted = Self {
            sessions: if quick { vec![1, 32] } else { vec![1, 32, 256] },
            payloads: PAYLOADS.to_vec(),
            ways: WAYS.to_vec(),
            routes: None,
            budget: Duration::from_secs(if quick { 30 } else { 120 }),
            rounds: 2,
            startups: if quick { 3 } else { 10 },
            idle: if quick { 0 } else { 10_000 },
            growth: None,
            bound: vec![Bound::Key],
            records: vec![10_000, 100_000, 1_000_000],
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" | "--quick" => {}
                "--sessions" => {
                    let all = args.next()?.split(',').map(|n| n.parse().ok().filter(|n| *n > 0));
                    wanted.sessions = all.collect::<Option<_>>()?;
                }
                "--seconds" => wanted.budget = Duration::from_secs(args.next()?.parse().ok()?),
                "--rounds" => wanted.rounds = args.next()?.parse().ok().filter(|n| *n > 0)?,
                "--startups" => wanted.startups = args.next()?.parse().ok()?,
                "--idle" => wanted.idle = args.next()?.parse().ok()?,
                "--payloads" => {
                    wanted.payloads = chosen(&Payload::ALL, args.next()?, Payload::name)?;
                }
                "--ways" => wanted.ways = chosen(&WAYS, args.next()?, Way::name)?,
                "--routes" => wanted.routes = Some(chosen(&ROUTES, args.next()?, Route::name)?),
                "--bound" => wanted.bound = chosen(&BOUNDS, args.next()?, Bound::name)?,
                "--growth" => {
                    let one = chosen(&GROWTHS, args.next()?, Growth::name)?;
                    wanted.growth = one.first().copied();
                }
                "--records" => {
                    let all = args.next()?.split(',').map(|n| n.parse().ok());
                    wanted.records = all.collect::<Option<_>>()?;
                }
                _ => return None,
            }
        }
        Some(wanted)
    }

    /// What is measured, in this order, so that the ways of one row take turns.
    pub fn cells(&self, nginx: bool) -> Vec<Cell> {
        let mut cells = Vec::new();
        for route in self.routes.as_deref().unwrap_or(&[BASE]) {
            for payload in &self.payloads {
                for sessions in &self.sessions {
                    self.row(&mut cells, *route, *payload, *sessions);
                }
            }
        }
        if self.routes.is_none() {
            for route in ROUTES {
                for payload in VARIED {
                    let known = route == BASE && payload == Payload::Plain;
                    if !known {
                        self.row(&mut cells, route, payload, VARIED_SESSIONS);
                    }
                }
            }
        }
        cells.retain(|cell| nginx || cell.way != Way::Nginx);
        cells
    }

    fn row(&self, cells: &mut Vec<Cell>, route: Route, payload: Payload, sessions: usize) {
        let ways = self.ways.iter().filter(|way| route.has(**way, payload));
        cells.extend(ways.map(|way| Cell { route, payload, sessions, way: *way }));
    }
}

fn chosen<T: Copy>(all: &[T], names: &str, name: impl Fn(T) -> &'static str) -> Option<Vec<T>> {
    names.split(',').map(|wanted| all.iter().copied().find(|item| name(*item) == wanted)).collect()
}
