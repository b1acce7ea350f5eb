//! What the pages say stays true where a test can tell: links lead somewhere, the shipped example
//! can be served, the policies shown can be loaded, and no error code is without its line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page, with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let top = fs::read_dir(root()).unwrap();
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let identity = fs::read_dir(root().join("docs/identity")).unwrap();
    let pages: Vec<_> = top
        .chain(docs)
        .chain(identity)
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    assert!(pages.len() > 10, "found only {} pages", pages.len());
    pages
}

/// A heading as GitHub makes an anchor of it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut broken = Vec::new();
    for (page, text) in pages() {
        for found in link.captures_iter(&text) {
            let target = &found[1];
            if target.starts_with("https://") {
                continue;
            }
            let (file, place) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            let there = fs::read_to_string(&file).is_ok_and(|text| {
                let mut heads = text.lines().filter(|line| line.starts_with('#'));
                place.is_empty()
                    || heads.any(|line| anchor(line.trim_start_matches('#').trim()) == place)
            });
            if !there {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn the_example_can_be_served() {
    let check = |token: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcpx"));
        command.args(["serve", "--check", "--config"]).arg(root().join("deploy/mcpx.toml"));
        command.env_remove("CRM_TOKEN");
        if let Some(token) = token {
            command.env("CRM_TOKEN", token);
        }
        command.output().unwrap()
    };
    let good = check(Some("x"));
    assert!(good.status.success(), "{good:?}");
    let without = check(None);
    assert!(String::from_utf8_lossy(&without.stderr).contains("CRM_TOKEN"), "{without:?}");
}

/// Every block that begins with a word, in a language, of a page.
fn blocks(text: &str, language: &str, first: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    let blocks = text.split(&start).skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter(|block| block.starts_with(first)).map(str::to_owned).collect()
}

#[test]
fn the_trust_rules_shown_can_be_served() {
    let text = fs::read_to_string(root().join("docs/identity/workloads.md")).unwrap();
    let shown = blocks(&text, "toml", "[trust.");
    assert!(shown.len() >= 5, "found only {}", shown.len());
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies");
    fs::create_dir(&policies).unwrap();
    let cedar = blocks(&text, "cedar", "permit");
    assert_eq!(cedar.len(), 1);
    fs::write(policies.join("shown.cedar"), cedar.join("\n")).unwrap();
    fs::write(folder.path().join("cluster-jwks.json"), "{\"keys\": []}").unwrap();
    let config = folder.path().join("mcpx.toml");
    let head = "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\n\
                [[issuer]]\nname = \"corp\"\nurl = \"https://login.example.com\"\n";
    fs::write(&config, format!("{head}{}", shown.join("\n"))).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcpx"));
    let output = command.args(["serve", "--check", "--config"]).arg(&config).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("aks, deploy, gitlab, nightly, spiffe"), "{said}");
}

/// Each `[[issuer]]` block of the page on identity providers is accepted as it stands.
#[test]
fn the_issuers_shown_can_be_served() {
    let text = fs::read_to_string(root().join("docs/identity.md")).unwrap();
    let shown: Vec<_> = text
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|block| block.contains("[[issuer]]"))
        .collect();
    assert!(shown.len() >= 6, "found only {}", shown.len());
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("graph.secret"), "x").unwrap();
    for block in shown {
        let server = "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\n";
        let config = folder.path().join("mcpx.toml");
        let text = format!("{server}{}", block.replace("/etc/mcpx/", ""));
        fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcpx"));
        let output = command.args(["serve", "--check", "--config"]).arg(config).output().unwrap();
        assert!(output.status.success(), "{block}\n{output:?}");
    }
}

#[test]
fn the_policies_shown_can_be_loaded() {
    let text = fs::read_to_string(root().join("docs/policies.md")).unwrap();
    let shown: Vec<_> = text
        .split("```cedar\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|block| block.contains("principal"))
        .collect();
    assert!(shown.len() >= 2);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("shown.cedar"), shown.join("\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcpx"));
    let output = command.args(["policy", "check"]).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The codes are where a short word in quotes stands in a place that only codes have.
#[test]
fn every_error_code_has_its_line() {
    let places: &[(&str, &str)] = &[
        ("src/gateway/refusal.rs", r#""([a-z]+(?:_[a-z]+)+)""#),
        ("src/gateway/answer.rs", r#"failed_closed\("([a-z_]+)""#),
        ("src/gateway/asked.rs", r#"failed_closed\("([a-z_]+)""#),
        ("src/gateway/decode.rs", r#"failed_closed\("([a-z_]+)""#),
        ("src/gateway/respond.rs", r#""mcpx":\{\{"code":"([a-z_]+)""#),
        ("src/upstream/mod.rs", r#"=> "([a-z_]+)""#),
        ("src/identity/error.rs", r#"=> "([a-z_]+)""#),
        ("src/identity/dpop.rs", r#"=> "([a-z_]*dpop_[a-z_]+)""#),
        ("src/control/error.rs", r#"Self::new\([^"]*"[a-z_]+", "([a-z_]+)""#),
        ("src/control/exchange.rs", r#"(?:over|invalid)\("([a-z_]+)""#),
        ("src/control/approvals.rs", r#""(approval_[a-z]+|not_a_person)""#),
        ("src/control/requests.rs", r#""((?:approval|grant|needs|too)_[a-z_]+)"[,)]"#),
        ("src/control/session.rs", r#"unauthenticated\("([a-z_]+)""#),
        ("src/control/workload.rs", r#""(token_[a-z]+)""#),
        ("src/identity/trust/mod.rs", r#"=> "(trust_[a-z]+)""#),
        ("src/control/listen.rs", r#"RefusalStage::[A-Za-z]+, "([a-z_]+)""#),
        ("src/identity/possession.rs", r#"=> "([a-z]+(?:_[a-z]+)+)""#),
        ("src/identity/certificate.rs", r#"=> "([a-z_]+)""#),
        ("src/broker/channel.rs", r#"Problem::new\([^"]*"([a-z_]+)""#),
        ("src/broker/problem.rs", r#"Self::new\([^"]*"([a-z_]+)""#),
        ("src/broker/stdio/exchange.rs", r#"Problem::new\([^"]*"([a-z_]+)""#),
    ];
    let page = fs::read_to_string(root().join("docs/errors.md")).unwrap();
    // Words for a transport, in the same file.
    let others = BTreeSet::from(["http", "sse", "stdio"]);
    let mut missing = BTreeSet::new();
    for (file, pattern) in places {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let found: BTreeSet<_> =
            Regex::new(pattern).unwrap().captures_iter(code).map(|c| c[1].to_owned()).collect();
        assert!(!found.is_empty(), "{file}: {pattern} finds nothing any more");
        missing.extend(
            found
                .into_iter()
                .filter(|code| !others.contains(code.as_str()))
                .filter(|code| !page.contains(&format!("`{code}`")))
                .map(|code| format!("{file}: {code}")),
        );
    }
    assert!(missing.is_empty(), "not in docs/errors.md:\n{missing:#?}");
}
