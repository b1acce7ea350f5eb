//! The map of the house, held: which module may use which, how long a file may be, where SQL and
//! printing live.
//!
//! Change an arrow on purpose, here, with the reason. Every rule is shown at the end to be able to
//! fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A module and what it may use. Left may use right, never back.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("mcp", &["types"]),
    ("policy", &["mcp", "types"]),
    ("mask", &["mcp", "types"]),
    ("audit", &["policy", "mask", "mcp", "types"]),
    ("identity", &["policy", "mask", "mcp", "types"]),
    // `audit`, because forwarding takes a `Durable<Permit>`: the type that proves that the call's
    // record is on disk before a byte of it leaves.
    ("upstream", &["audit", "policy", "mask", "mcp", "types"]),
    ("gateway", &["upstream", "audit", "identity", "policy", "mask", "mcp", "types"]),
    ("store", &["upstream", "audit", "identity", "policy", "mask", "mcp", "types"]),
    (
        "evidence",
        &["gateway", "store", "upstream", "audit", "identity", "policy", "mask", "mcp", "types"],
    ),
    (
        "control",
        &[
            "evidence", "gateway", "store", "upstream", "audit", "identity", "policy", "mask",
            "mcp", "types",
        ],
    ),
    // The laptop side. Not `upstream`, `gateway`, `store` or `control`: what runs beside an agent
    // must have no code that holds a server's credential.
    ("broker", &["audit", "identity", "policy", "mask", "mcp", "types"]),
    // Right under `cli`, not far to the right: a checked configuration is made of the settings
    // types of the modules that it is for, and none of them reads it.
    (
        "config",
        &["control", "gateway", "upstream", "audit", "identity", "policy", "mask", "mcp", "types"],
    ),
    (
        "cli",
        &[
            "config", "control", "broker", "evidence", "gateway", "store", "upstream", "audit",
            "identity", "policy", "mask", "mcp", "types",
        ],
    ),
];

const LONGEST_FILE: usize = 700;
const MAY_PRINT: &[&str] = &["cli/ui.rs"];
const PRINTING: &[&str] = &["println!", "print!", "eprintln!", "eprint!", "dbg!"];

#[test]
fn the_source_keeps_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &root, &mut files);
    assert!(files.len() > 20, "found only {} files", files.len());
    let mut broken = Vec::new();
    for (path, text) in &files {
        broken.extend(check(path, text));
    }
    let modules: BTreeSet<_> = files.iter().filter_map(|(path, _)| module(path)).collect();
    let known: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    broken.extend(modules.difference(&known).map(|new| format!("{new}: has no arrows; add them")));
    broken
        .extend(known.difference(&modules).map(|old| format!("{old}: is gone; remove its arrows")));
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn the_arrows_have_no_circle() {
    let mut settled: BTreeSet<&str> = BTreeSet::new();
    while settled.len() < ARROWS.len() {
        let next = ARROWS.iter().find(|(name, uses)| {
            !settled.contains(name) && uses.iter().all(|used| settled.contains(used))
        });
        let Some((name, _)) = next else { panic!("a circle among what is not in {settled:?}") };
        settled.insert(name);
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            files.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The top-level module that a file belongs to; none for `lib.rs` and `main.rs`.
fn module(path: &str) -> Option<String> {
    let first = path.split('/').next()?.trim_end_matches(".rs");
    (!matches!(first, "lib" | "main")).then(|| first.to_owned())
}

/// Every rule that a file breaks.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if !text.starts_with("//!") {
        broken.push(format!("{path}: does not begin with a //! header"));
    }
    let length = text.lines().count();
    if length > LONGEST_FILE {
        broken
            .push(format!("{path}: has {length} lines; split it by idea ({LONGEST_FILE} at most)"));
    }
    let code = code_only(text);
    if code.contains("sqlx::") && !path.starts_with("store/") {
        broken.push(format!("{path}: SQL belongs into store/"));
    }
    if !MAY_PRINT.contains(&path) {
        for name in PRINTING {
            let found = code
                .match_indices(name)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            if found {
                broken.push(format!("{path}: {name} belongs into cli/ui.rs"));
            }
        }
    }
    if let Some(module) = module(path) {
        let allowed = ARROWS.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, a)| a);
        for used in uses(path, &code) {
            if used != module && !allowed.contains(&used.as_str()) {
                broken.push(format!("{path}: {module} must not use {used}"));
            }
        }
    }
    broken
}

/// The top-level modules that a file's code names, through `crate::` or enough `super::`.
fn uses(path: &str, code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, start) in code.match_indices("crate::") {
        found.extend(heads(&code[at + start.len()..]));
    }
    // How many `super` lead from this file's module to the crate. One more inside an inline
    // module; counting it as the crate too can only find too much.
    let depth = path.trim_end_matches("/mod.rs").split('/').count();
    let mut rest = code;
    while let Some(at) = rest.find("super::") {
        let mut tail = &rest[at..];
        let mut count = 0;
        while let Some(next) = tail.strip_prefix("super::") {
            count += 1;
            tail = next;
        }
        if count >= depth {
            found.extend(heads(tail));
        }
        rest = tail;
    }
    found.retain(|name| ARROWS.iter().any(|(module, _)| module == name));
    found
}

/// The first names of a path or of each path in a `{…}` group.
fn heads(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut depth = 0;
    let mut names = vec![name(group)];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&group[at + 1..])),
            _ => {}
        }
    }
    names
}

/// The text without comments and without what stands in strings.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            string_end(rest)
        } else if let Some(hashes) = raw_string(rest, &code) {
            let close = format!("\"{}", "#".repeat(hashes));
            let begin = hashes + 2;
            rest[begin..].find(&close).map_or(rest.len(), |end| begin + end + close.len())
        } else if c == '\'' {
            char_end(rest)
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[skip..];
    }
    code
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            c => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

fn raw_string(text: &str, before: &str) -> Option<usize> {
    if before.ends_with(|c: char| c.is_alphanumeric() && c != 'b' && c != 'c') {
        return None;
    }
    let hashes = text.strip_prefix('r')?;
    let count = hashes.chars().take_while(|c| *c == '#').count();
    hashes[count..].starts_with('"').then_some(count)
}

/// A character, or only the quote of a lifetime.
fn char_end(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => {
            chars.find(|(_, c)| *c == '\'').map_or(text.len(), |(at, _)| at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

mod can_fail {
    use super::*;

    fn breaks(path: &str, body: &str) -> Vec<String> {
        check(path, &format!("//! Header.\n{body}"))
    }

    fn one(path: &str, body: &str, expected: &str) {
        let broken = breaks(path, body);
        assert!(broken.len() == 1 && broken[0].contains(expected), "{body}: {broken:?}");
    }

    #[test]
    fn arrows() {
        one("mcp/x.rs", "use crate::gateway::Gateway;", "mcp must not use gateway");
        one("broker/x.rs", "fn f() { crate::upstream::call() }", "broker must not use upstream");
        one("broker/mod.rs", "use super::store::Store;", "broker must not use store");
        one("audit/a/b.rs", "use super::super::super::store;", "audit must not use store");
        one("policy.rs", "use crate::{mcp::{Id, Kind}, types, control};", "must not use control");
        one("policy.rs", "use crate::{\n    mcp::Id,\n    mask,\n};", "must not use mask");
        one("types.rs", "pub use crate::mcp::Id;", "types must not use mcp");
        one("store/x.rs", "const C: char = '\"'; use crate::gateway::A; // \"", "use gateway");
    }

    #[test]
    fn allowed_edges_and_mentions_pass() {
        for (path, body) in [
            ("cli/x.rs", "use crate::control::Control;"),
            ("mcp/x.rs", "use crate::types::Id; use super::json; use crate::mcp::sse;"),
            ("mcp/x.rs", "/// See [`crate::gateway`].\n// crate::store\n/* crate::cli */"),
            ("mcp/x.rs", "const A: &str = \"crate::gateway\"; const B: &str = r#\"crate::cli\"#;"),
            ("broker/relay.rs", "mod tests { use super::super::testing::Gateway; }"),
            ("broker/stdio/x.rs", "use super::super::upstream_of_ours;"),
            ("mcp/x.rs", "fn f<'a>(c: char) -> bool { c == '\"' } const C: &str = \"println!\";"),
        ] {
            assert_eq!(breaks(path, body), Vec::<String>::new(), "{body}");
        }
    }

    #[test]
    fn headers_length_sql_and_printing() {
        assert!(check("mcp/x.rs", "use std::fmt;\n")[0].contains("header"));
        one("mcp/x.rs", &"\n".repeat(700), "701 lines");
        one("control/x.rs", "sqlx::query(q)", "SQL belongs");
        assert!(breaks("store/x.rs", "sqlx::query(q)").is_empty());
        one("gateway/x.rs", "println!()", "belongs into cli/ui.rs");
        one("cli/login.rs", "anstream::eprintln!()", "belongs into cli/ui.rs");
        assert!(breaks("cli/ui.rs", "println!()").is_empty());
    }

    #[test]
    fn a_new_module_needs_arrows() {
        assert_eq!(module("newcomer/mod.rs").as_deref(), Some("newcomer"));
        assert!(ARROWS.iter().all(|(name, _)| *name != "newcomer"));
    }
}
