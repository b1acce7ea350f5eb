//! The fuzz targets' claims, with bytes made up by proptest: the same functions as in `fuzz/`, on
//! the hostile messages of the stories and on what becomes of them when a few bytes change.
//!
//! `FUZZ_CORPUS=fuzz/corpus cargo test --test fuzz seeds` writes the seeds where `cargo fuzz run`
//! looks for them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs,
    dead_code,
    reason = "tests"
)]

#[path = "story/smuggle/clients.rs"]
mod clients;
#[path = "../fuzz/src/lib.rs"]
mod entries;
#[path = "story/smuggle/table.rs"]
mod table;

use std::path::Path;

use proptest::prelude::*;

/// Some bytes of each kind, by the target that they are for.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let rows = clients::table().into_iter().chain(table::of_servers());
    let messages: Vec<_> = rows.map(|row| row.bytes).filter(|bytes| bytes.len() < 2000).collect();
    match target {
        "batch" => {
            let pairs = messages.windows(2).map(|pair| pair.join(&b","[..]));
            pairs.map(|pair| [b"[", pair.as_slice(), b"]"].concat()).collect()
        }
        "sse" => {
            let events = ["data", "id: 1\rdata", "event: message\r\nid: \0\ndata", ": x\n\ndata"];
            let event = |(at, message): (usize, &Vec<u8>)| {
                let start = events[at % events.len()];
                [start.as_bytes(), b": ", message, b"\n\n"].concat()
            };
            messages.iter().enumerate().map(event).collect()
        }
        "header" => ["note", "=?base64?WsO8cmljaA==?=", "=?base64?WsO8?=", "=?base64?", " Zürich "]
            .map(|text| text.as_bytes().to_vec())
            .to_vec(),
        _ => messages,
    }
}

/// A seed, with some of its bytes changed, left out, doubled, or exchanged with another's.
fn bytes(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\"".to_vec()),
        Just(b"{".to_vec()),
        Just(b"]".to_vec()),
        Just(b",".to_vec()),
        Just(b"\\u006d".to_vec()),
        Just(b"1e400".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\n\n".to_vec()),
        Just(b"\"id\":1,".to_vec()),
        Just("\u{feff}".as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..4),
    ];
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), 0usize..4, piece), 0..5);
    let seeded = (proptest::sample::select(seeds(target)), edits).prop_map(|(mut seed, edits)| {
        for (at, length, piece) in edits {
            let at = at.index(seed.len() + 1);
            let end = (at + length).min(seed.len());
            seed.splice(at..end, piece);
        }
        seed
    });
    prop_oneof![8 => seeded, 1 => proptest::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn messages(data in bytes("message")) {
        entries::message(&data);
    }

    #[test]
    fn batches(data in bytes("batch")) {
        entries::batch(&data);
    }

    #[test]
    fn header_values(data in bytes("header")) {
        entries::header(&data);
    }

    #[test]
    fn event_streams(cut in any::<usize>(), data in bytes("sse")) {
        entries::events(cut, &data);
    }
}

#[test]
fn seeds_are_written_and_hold() {
    let given = std::env::var_os("FUZZ_CORPUS");
    let folder = given.unwrap_or_else(|| format!("{}/corpus", env!("CARGO_TARGET_TMPDIR")).into());
    for target in ["message", "batch", "header", "sse"] {
        let folder = Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder).unwrap();
        let seeds = seeds(target);
        assert!(seeds.len() >= 5, "{target}");
        for (number, seed) in seeds.iter().enumerate() {
            match target {
                "message" => entries::message(seed),
                "batch" => entries::batch(seed),
                "header" => entries::header(seed),
                // At every place, once.
                _ => (0..=seed.len()).for_each(|cut| entries::events(cut, seed)),
            }
            std::fs::write(folder.join(format!("seed-{number:03}")), seed).unwrap();
        }
    }
}

#[test]
fn the_table_holds_for_the_decoder_alone() {
    use mcpx::mcp::{Limits, Message, Origin};
    let limits = Limits { bytes: table::MESSAGE_BYTES, depth: 100 };
    let clients = clients::table().into_iter().map(|row| (Origin::Client, row));
    for (origin, row) in
        clients.chain(table::of_servers().into_iter().map(|row| (Origin::Server, row)))
    {
        let what = row.what;
        let decoded = Message::decode(row.bytes.clone().into(), origin, &limits);
        match (row.fate, decoded) {
            (table::Fate::Passed, Ok(message)) => assert_eq!(message.raw(), &row.bytes, "{what}"),
            (table::Fate::Refused { pointer, .. }, Err(error)) => {
                if let Some(pointer) = pointer {
                    assert_eq!(error.pointer.as_deref(), Some(pointer), "{what}: {error}");
                }
            }
            // What it names, the call finds out.
            (table::Fate::Refused { says: "params.name", .. }, Ok(_)) => {}
            (fate, decoded) => panic!("{what}: {fate:?}, and yet {decoded:?}"),
        }
    }
}
