//! The tour: what alice and bob do, step by step, and what must hold at each.

use std::path::Path;

use super::stage::{Stage, Who};
use crate::cli::error::{CliError, Kind};
use crate::store::customers::SampleCustomers;

pub(super) const ALICE: Who = Who::Alice;
pub(super) const BOB: Who = Who::Bob;

/// How many steps there are.
pub(super) const STEPS: u64 = 8;

/// Gives the tour.
pub(super) async fn give(stage: &mut Stage) -> Result<(), CliError> {
    stage.say("mcpx demo: one server, one sample MCP server, two people, all on this machine.")?;
    stage.say(&format!("The server is {}.", stage.server))?;

    stage.step("1. alice and bob log in by device code")?;
    let done = stage.log_in(ALICE, true).await?;
    stage.check("alice is logged in", done.output.contains("alice@example.com"))?;
    stage.log_in(BOB, true).await?;

    stage.step("2. alice connects; no secret of the MCP server reaches her machine")?;
    let listed = stage.run(ALICE, &["ls"]).await?;
    stage.check("she sees the connection", listed.output.contains("customers"))?;
    let mut connect = stage.start(ALICE, &["connect", "customers"])?;
    let url = stage.until(&mut connect, "http").await?;
    let client = |rest: &[&'static str]| -> Vec<String> {
        let start = ["demo", "sample-client", url.trim()].map(str::to_owned);
        start.into_iter().chain(rest.iter().map(|arg| (*arg).to_owned())).collect()
    };
    let call = |rest: &[&'static str]| client(rest);

    stage.step("3. an MCP client lists the tools: only those that she may use")?;
    let done = run(stage, ALICE, &call(&["list"])).await?;
    stage.check("search_customers is listed", done.1.contains("search_customers"))?;
    stage.check("export_customers, which policy forbids, is not", !done.1.contains("export_"))?;

    stage.step("4. a query returns rows, with card, SSN and e-mail masked on the way")?;
    let search = ["call", "search_customers", r#"{"name":"a"}"#];
    let done = run(stage, ALICE, &call(&search)).await?;
    stage.check("the rows are there", done.0 == 0 && done.1.contains("Ada Winters"))?;
    for (what, raw) in [
        ("card number", "4111 1111 1111 1111"),
        ("social security number", "219-44-7315"),
        ("e-mail address", "ada.winters@example.com"),
    ] {
        stage.check(&format!("no {what} got through"), !done.1.contains(raw))?;
    }

    let approval = deletion(stage, &call(&["call", "delete_customer", r#"{"id":2}"#])).await?;

    stage.step("6. a forbidden call is denied, with the rule's name")?;
    let done = run(stage, ALICE, &call(&["call", "export_customers"])).await?;
    stage.check("it names the rule no-bulk-export", done.1.contains("no-bulk-export"))?;
    stage.check("the client failed with code 3", done.0 == i32::from(Kind::Denied.exit_code()))?;
    stage.stop(connect).await?;

    let session = sessions(stage).await?;
    let replay = stage.run(BOB, &["replay", &session]).await?;
    for (what, text) in [
        ("who called", "alice@example.com"),
        ("what was decided, and by which rule", "no-bulk-export"),
        ("which approval", approval.as_str()),
        ("who approved", "bob@example.com"),
    ] {
        stage.check(&format!("the replay shows {what}"), replay.output.contains(text))?;
    }

    proof(stage).await?;
    stage.say("\nEverything held. `mcpx demo --serve` keeps it running for your own MCP client.")
}

/// Runs a client's command; gives exit code and output.
async fn run(stage: &Stage, who: Who, args: &[String]) -> Result<(i32, String), CliError> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = stage.run(who, &args).await?;
    Ok((done.code, done.output))
}

/// A destructive call waits, bob approves it, and it goes through exactly once.
async fn deletion(stage: &Stage, call: &[String]) -> Result<String, CliError> {
    stage.step("5. a destructive call waits for a person, and goes through exactly once")?;
    let args: Vec<&str> = call.iter().map(String::as_str).collect();
    let mut waiting = stage.start(ALICE, &args)?;
    let line = stage.until(&mut waiting, "apr_").await?;
    let approval = approval_in(&line)?;
    stage.check("nothing is deleted yet", deletions(stage).await? == 0)?;

    let own = stage.run(ALICE, &["approve", &approval, "--yes"]).await?;
    stage.check("alice cannot approve her own call", own.code != 0)?;
    stage.run(BOB, &["approve"]).await?;
    let yes = stage.run(BOB, &["approve", &approval, "--yes", "--reason", "left us"]).await?;
    stage.check("bob can", yes.code == 0)?;
    let done = stage.finish(waiting).await?;
    stage.check("the waiting call went through", done.output.contains("customer 2 is deleted"))?;
    stage.check("one deletion was carried out", deletions(stage).await? == 1)?;

    let mut again = stage.start(ALICE, &args)?;
    let line = stage.until(&mut again, "apr_").await?;
    let second = approval_in(&line)?;
    stage.check("the same call again needs a yes of its own", second != approval)?;
    stage.run(BOB, &["deny", &second, "--reason", "once is enough"]).await?;
    let done = stage.finish(again).await?;
    stage.check("bob's no reached the client", done.output.contains("once is enough"))?;
    stage.check("still one deletion", deletions(stage).await? == 1)?;
    Ok(approval)
}

fn approval_in(line: &str) -> Result<String, CliError> {
    let id = line
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .find(|word| word.starts_with("apr_"));
    id.map(str::to_owned).ok_or_else(|| CliError::failure("no approval is named"))
}

async fn deletions(stage: &Stage) -> Result<i64, CliError> {
    let failed =
        |error| CliError::failure("the customers cannot be counted").caused_by(Some(&error));
    let customers = SampleCustomers::open(&stage.place.customers).await.map_err(failed)?;
    customers.deletions().await.map_err(failed)
}

async fn sessions(stage: &Stage) -> Result<String, CliError> {
    stage.step("7. bob, who is an auditor as well, replays alice's session")?;
    let done = stage.run(BOB, &["sessions"]).await?;
    let session = done
        .output
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .find(|word| word.starts_with("ses_"));
    session.map(str::to_owned).ok_or_else(|| CliError::failure("no session is listed"))
}

/// The log verifies; a copy with one byte flipped does not, and the place is named.
async fn proof(stage: &Stage) -> Result<(), CliError> {
    stage.step("8. the record proves itself; one flipped byte is found")?;
    let done = stage.run(BOB, &["audit", "verify"]).await?;
    stage.check("the log verifies from outside", done.code == 0)?;
    let data = stage.place.data.to_string_lossy();
    let done = stage.run(BOB, &["audit", "verify", "--dir", &data]).await?;
    stage.check("and in its folder, with every recorded body", done.code == 0)?;

    let copy = stage.place.dir.join("copy");
    let flipped = flip_a_byte(&stage.place.data, &copy)
        .map_err(|error| CliError::failure("the log cannot be copied").caused_by(Some(&error)))?;
    stage.say(&format!("(one byte of a copy is flipped: {flipped})"))?;
    let done = stage.run(BOB, &["audit", "verify", "--dir", &copy.to_string_lossy()]).await?;
    let found = done.code == i32::from(Kind::Integrity.exit_code());
    stage.check("verify fails with code 8, and says where", found && done.output.contains("tile/"))
}

/// Copies a log with one byte of one stored entry changed; says which.
fn flip_a_byte(data: &Path, copy: &Path) -> std::io::Result<String> {
    copy_tree(&data.join("log"), &copy.join("log"))?;
    std::fs::copy(data.join("log.vkey"), copy.join("log.vkey"))?;
    let entries = copy.join("log/tile/entries");
    let tile = largest_file(&entries)?;
    let mut bytes = std::fs::read(&tile)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    std::fs::write(&tile, bytes)?;
    let shown = tile.strip_prefix(copy).unwrap_or(&tile).display().to_string();
    Ok(format!("byte {middle} of {shown}"))
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The largest file below a folder, which is the widest tile.
fn largest_file(folder: &Path) -> std::io::Result<std::path::PathBuf> {
    let mut best: Option<(u64, std::path::PathBuf)> = None;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                folders.push(entry.path());
            } else if best.as_ref().is_none_or(|(length, _)| meta.len() > *length) {
                best = Some((meta.len(), entry.path()));
            }
        }
    }
    best.map(|(_, path)| path).ok_or_else(|| std::io::Error::other("the log has no entries"))
}
