//! The masking engine over `tools/call` results: sparse (log rows, nothing to mask) and dense
//! (customer rows, half of the fields sensitive), 10 KB and 1 MB, and texts built to be slow.
//!
//! Run with `cargo bench --bench mask`; divan prints the throughput.

#![allow(clippy::expect_used, reason = "a bench without its masker measures nothing")]

use bytes::Bytes;
use divan::Bencher;
use divan::counter::BytesCount;
use mcpx::mask::{Masker, Rules};

const SMALL: usize = 10 << 10;
const LARGE: usize = 1 << 20;

fn main() {
    divan::main();
}

#[divan::bench(args = [SMALL, LARGE])]
fn sparse(bencher: Bencher, size: usize) {
    run(bencher, tool_result(size, log_row));
}

#[divan::bench(args = [SMALL, LARGE])]
fn dense(bencher: Bencher, size: usize) {
    run(bencher, tool_result(size, customer_row));
}

/// Repeated beginnings of things that never come.
#[divan::bench(args = ["{\"", "[{\"a\":", "email:", "4111 ", "a@", "ssn 1", "password=\"", "\\\""])]
fn hostile(bencher: Bencher, part: &str) {
    let text = part.repeat(LARGE / part.len());
    run(bencher, message(&text));
}

fn run(bencher: Bencher, message: Bytes) {
    let masker = Masker::new(&Rules::default()).expect("the default rules are good");
    bencher
        .counter(BytesCount::new(message.len()))
        .bench(|| masker.message(divan::black_box(&message)).map(|masked| masked.bytes().len()));
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
