//! How long the command line takes to start: `mcpx --help`, and `mcpx connect NAME --stdio` from
//! the process's start to its answer to a client's first message.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::place::Place;
use super::server::PROGRAM;
use super::ways::Reach;

pub async fn measure(place: &Place, times: usize) -> String {
    let connection = Reach::Http.connection();
    tokio::task::block_in_place(|| {
        let nothing = spread((0..times * 3).map(|_| run("true", &[])).collect());
        let help = spread((0..times * 3).map(|_| run(PROGRAM, &["--help"])).collect());
        let first = spread((0..times).map(|_| first_answer(place)).collect());
        format!(
            "start to end of `mcpx --help`: {help} (of `true`: {nothing})\n\
             start of `mcpx connect {connection} --stdio` to its answer to initialize: {first}"
        )
    })
}

fn run(program: &str, args: &[&str]) -> Duration {
    let begun = Instant::now();
    let ended = Command::new(program).args(args).stdout(Stdio::null()).status();
    let took = begun.elapsed();
    assert!(ended.is_ok_and(|status| status.success()), "{program} {args:?}");
    took
}

/// With a valid login, and no grant yet: the token exchange is part of it.
fn first_answer(place: &Place) -> Duration {
    let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
    let begun = Instant::now();
    let mut child = Command::new(PROGRAM)
        .args(["connect", Reach::Http.connection(), "--stdio"])
        .env("MCPX_HOME", &place.home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("mcpx connect starts");
    let mut input = child.stdin.take().expect("its input");
    writeln!(input, "{hello}").expect("it reads");
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    let mut answer = String::new();
    output.read_line(&mut answer).expect("an answer");
    let took = begun.elapsed();
    assert!(answer.contains(r#""serverInfo""#), "{answer}");
    drop(input);
    child.wait().expect("its end");
    took
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    match times.as_slice() {
        [] => "not measured".to_owned(),
        [fastest, .., slowest] => {
            format!("p50 {:.1?}, {fastest:.1?} to {slowest:.1?}", times[times.len() / 2])
        }
        [only] => format!("{only:.1?}"),
    }
}
