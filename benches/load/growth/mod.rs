//! What grows, and with what: each by a command of its own, `-- --growth NAME`.

mod grants;
mod log;
mod policies;
mod sessions;
mod tools;

use std::time::{Duration, Instant};

use super::wanted::Wanted;

/// What is made larger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Growth {
    /// 50, 500, 5,000 policies.
    Policies,
    /// 10, 100, 1,000 tools of one server.
    Tools,
    /// 1, 32, 256 busy sessions, then resting ones.
    Sessions,
    /// 1, 32, 256 people who ask for a grant at a time.
    Grants,
    /// 10⁴, 10⁵, 10⁶ records of the audit log, or as many as are asked for.
    Log,
}

pub const GROWTHS: [Growth; 5] =
    [Growth::Policies, Growth::Tools, Growth::Sessions, Growth::Grants, Growth::Log];

impl Growth {
    pub fn name(self) -> &'static str {
        match self {
            Self::Policies => "policies",
            Self::Tools => "tools",
            Self::Sessions => "sessions",
            Self::Grants => "grants",
            Self::Log => "log",
        }
    }
}

pub async fn run(growth: Growth, wanted: &Wanted) {
    let begun = Instant::now();
    match growth {
        Growth::Policies => policies::run(slot_of(wanted, 6)).await,
        Growth::Tools => tools::run(slot_of(wanted, 6)).await,
        Growth::Sessions => sessions::run(slot_of(wanted, 3), wanted.idle).await,
        Growth::Grants => grants::run(slot_of(wanted, 3)).await,
        Growth::Log => log::run(&wanted.records).await,
    }
    println!("took {:.0?}", begun.elapsed());
}

/// How long each of so many slots may be; more than some seconds say nothing more.
fn slot_of(wanted: &Wanted, slots: u32) -> Duration {
    (wanted.budget / slots / 2).min(Duration::from_secs(5))
}

/// A figure, and in brackets as a multiple of the first one.
fn versus_first(first: Option<f64>, own: f64, digits: usize) -> String {
    match first.filter(|first| *first > 0.0) {
        Some(first) => format!("{own:.digits$} ({:.2}x)", own / first),
        None => format!("{own:.digits$}"),
    }
}
