//! The masking engine over `tools/call` results, from the raw message to the masked one, on one
//! core: a short text, log rows with nothing to mask, customer rows of which half the fields are
//! sensitive, and texts built to be slow.
//!
//! Run with `cargo bench --bench mask`. Times are the thread's processor time. Copying the same
//! bytes and reading them with serde_json take turns with masking, so that ratios hold on a machine
//! that does other things as well.

#![allow(clippy::expect_used, reason = "a bench without its masker measures nothing")]
#![allow(clippy::print_stdout, reason = "the figures are what this program is for")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mcpx::mask::{Masker, Rules};

const SMALL: usize = 10 << 10;
const LARGE: usize = 1 << 20;
/// How long one input is measured.
const SPAN: Duration = Duration::from_millis(400);

/// Repeated beginnings of things that never come, or come too often.
const HOSTILE: &[&str] = &[
    "{\"",
    "{ \"a\":1,",
    "{\"a\":\"b\"} ",
    "[\"",
    "\\\"",
    ":",
    "a_b=",
    "a.b:",
    "name: A ",
    "api key: ",
    "email:",
    "password=\"",
    "ssn: ",
    "ssn:078051120 ",
    "phone: 1",
    "x-api-key: abcdefgh1 ",
    "4111 ",
    "5555555555554444,",
    "order id: 411111111111111",
    "1-1-",
    "a@",
    "\u{e9}@\u{e9}.",
    "GB82WEST12345698765433 ",
    "ghp_",
    "-----BEGIN PRIVATE KEY-----\n",
];

fn main() {
    let masker = Masker::new(&Rules::default()).expect("the default rules are good");
    println!(
        "{:<28}{:>9}{:>10}{:>12}{:>9}{:>14}{:>11}",
        "input", "bytes", "findings", "p50 us", "MB/s", "x serde_json", "x memcpy"
    );
    let plain = "The deployment finished without errors; three replicas are healthy, and the \
                 queue is empty again after the last change.";
    report(&masker, "plain 200 B", &message(plain));
    let sparse = [SMALL, LARGE].map(|size| tool_result(size, log_row));
    let dense = [SMALL, LARGE].map(|size| tool_result(size, customer_row));
    for (name, [small, large]) in [("sparse", sparse), ("dense", dense)] {
        let small = report(&masker, &format!("{name} 10 KB"), &small);
        let large = report(&masker, &format!("{name} 1 MB"), &large);
        println!("{:<28}{:>40.0}", format!("{name}, 1 MB to 10 KB"), large / small);
    }
    let mut slowest = (f64::MAX, "");
    for part in HOSTILE {
        let message = message(&part.repeat(LARGE / 4 / part.len()));
        let speed = length(&message) / report(&masker, &format!("hostile {part:?}"), &message);
        slowest = if speed < slowest.0 { (speed, part) } else { slowest };
    }
    println!("slowest of the hostile: {:?}, {:.0} MB/s", slowest.1, slowest.0);
}

fn length(message: &Bytes) -> f64 {
    u32::try_from(message.len()).map_or(0.0, f64::from)
}

/// Measures one input and prints its line; the median time in microseconds.
fn report(masker: &Masker, name: &str, message: &Bytes) -> f64 {
    let findings = masker.message(message).expect("the bench's own messages are good");
    let mask = || drop(black_box(masker.message(black_box(message))));
    let parse = || drop(black_box(serde_json::from_slice::<serde_json::Value>(black_box(message))));
    let copy = || drop(black_box(black_box(message).to_vec()));
    let [mask, parse, copy] = medians([&mask, &parse, &copy]);
    println!(
        "{name:<28}{:>9}{:>10}{mask:>12.2}{:>9.0}{:>14.2}{:>11.1}",
        message.len(),
        findings.findings().len(),
        length(message) / mask,
        mask / parse,
        mask / copy,
    );
    mask
}

/// The median times of three things that take turns, in microseconds.
fn medians(work: [&dyn Fn(); 3]) -> [f64; 3] {
    // Short work is done several times between two looks at the clock.
    let times = work.map(|work| {
        work();
        let begun = clock();
        work();
        let once = (clock() - begun).as_nanos().max(1);
        u32::try_from(20_000 / once).unwrap_or(0).clamp(1, 1000)
    });
    let mut samples = [Vec::new(), Vec::new(), Vec::new()];
    let begun = Instant::now();
    while begun.elapsed() < SPAN || samples.iter().any(|samples| samples.len() < 5) {
        for ((work, times), samples) in work.iter().zip(times).zip(&mut samples) {
            let begun = clock();
            (0..times).for_each(|_| work());
            samples.push((clock() - begun).as_secs_f64() * 1e6 / f64::from(times));
        }
    }
    samples.map(|mut samples| {
        samples.sort_by(f64::total_cmp);
        samples.get(samples.len() / 2).copied().unwrap_or_default()
    })
}

/// The time that this thread has had a processor.
#[cfg(unix)]
fn clock() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// Time, where the system does not say whose.
#[cfg(not(unix))]
fn clock() -> Duration {
    static BEGUN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    BEGUN.elapsed()
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let count = u64::try_from(from.len()).unwrap_or(1);
        usize::try_from(self.below(count)).ok().and_then(|at| from.get(at)).copied().unwrap_or("")
    }

    fn words(&mut self, count: u64) -> String {
        const WORDS: &[&str] = &[
            "queue", "replica", "deploy", "retry", "steady", "the", "cache", "worker", "and",
            "latency", "commit", "region", "index", "build", "across",
        ];
        (0..count).map(|_| self.pick(WORDS)).collect::<Vec<_>>().join(" ")
    }
}

fn log_row(numbers: &mut Numbers, row: usize) -> String {
    format!(
        r#"{{"id":{row},"level":"{}","ts":"2026-{:02}-{:02}T{:02}:41:07.{:06}","service":"api","msg":"{}","dur_ms":{},"trace":"{:08x}-88d6-4a76-8aab-2b8d{:08x}"}}"#,
        numbers.pick(&["info", "warn", "error"]),
        1 + numbers.below(12),
        1 + numbers.below(28),
        numbers.below(24),
        numbers.below(1_000_000),
        numbers.words(38),
        numbers.below(5000),
        numbers.below(1 << 32),
        numbers.below(1 << 32),
    )
}

fn customer_row(numbers: &mut Numbers, _: usize) -> String {
    const FIRST: &[&str] = &["Barbara", "Kristin", "Derrick", "Thomas", "Caitlyn", "Deanna"];
    const LAST: &[&str] = &["Rollins", "Conley", "Flores", "Turner", "Moreno", "Okafor", "Lund"];
    let (first, last) = (numbers.pick(FIRST), numbers.pick(LAST));
    format!(
        r#"{{"order_id":{},"full_name":"{first} {last}","email":"{}{}@example.com","phone":"({})555-01{:02}","ssn":"{}-{:02}-{:04}","card":"{}","iban":"GB82WEST12345698765432","address":"{} Bowers Dam, North Diana, KS","dob":"19{}-06-{:02}","ip":"198.51.100.{}","amount":{}.5,"updated_at":"2026-11-11T21:23:50.310183","note":"{}"}}"#,
        100_000_000 + numbers.below(800_000_000),
        first.to_lowercase(),
        numbers.below(1000),
        200 + numbers.below(700),
        numbers.below(100),
        100 + numbers.below(500),
        1 + numbers.below(99),
        1 + numbers.below(9999),
        card(numbers),
        1 + numbers.below(9999),
        10 + numbers.below(90),
        10 + numbers.below(19),
        numbers.below(256),
        numbers.below(9999),
        numbers.words(12),
    )
}

/// A card number whose check digit holds.
fn card(numbers: &mut Numbers) -> String {
    let body = format!("4{:07}{:07}", numbers.below(10_000_000), numbers.below(10_000_000));
    let sum: u32 = body
        .bytes()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit - b'0') * (2 - u32::try_from(place % 2).unwrap_or(0));
            if digit > 9 { digit - 9 } else { digit }
        })
        .sum();
    format!("{body}{}", (10 - sum % 10) % 10)
}

fn tool_result(size: usize, row: fn(&mut Numbers, usize) -> String) -> Bytes {
    let mut numbers = Numbers(7);
    let mut rows = Vec::new();
    let mut length = 0;
    while length < size {
        let row = row(&mut numbers, rows.len());
        length += row.len();
        rows.push(row);
    }
    message(&format!("[{}]", rows.join(", ")))
}

fn message(text: &str) -> Bytes {
    let text = serde_json::Value::from(text);
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{{"type":"text","text":{text}}}]}}}}"#
    ))
}
