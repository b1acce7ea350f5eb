//! A disk that takes no more. Calls are refused with a clear error, and nothing reaches an
//! upstream that is not on record.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::site::serve_refuses;
use crate::support::{Client, Person, Site, Skip, World, http};

crate::stories![a_full_disk, a_disk_that_is_full_from_the_start, a_read_only_disk];

fn a_full_disk(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let disk = Disk::mount(world, "16m")?;
    let mut server =
        Site::new(world, &idp).http("ledger", &ledger.url).data_dir(disk.path()).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let connected = alice.connect("ledger")?;
    let call = |text: &str| {
        let arguments = json!({"text": text});
        let target = connected.target();
        Client::TypeScript2.call(world, alice.home(), &target, "note", &arguments)
    };
    assert_eq!(call("before")?.text(), "noted: before");

    disk.fill()?;
    // Records may still fit into what is left of blocks that are allocated; then they do not.
    let mut refusals = 0;
    for attempt in 0..200 {
        match call(&format!("full {attempt}")) {
            Ok(seen) => assert!(!seen.is_error() && refusals == 0, "{seen:#?}"),
            Err(error) => {
                // Before the call or, where the request's record was the last to fit, after it.
                let told = error.to_string();
                let why =
                    told.contains("record") || told.contains("the audit log cannot be written");
                assert!(why, "the reason is not told: {error}");
                refusals += 1;
            }
        }
        if refusals == 3 {
            break;
        }
    }
    assert_eq!(refusals, 3, "a full disk takes records without end");
    let executed = world.executed().len();
    let recorded = server
        .leaves_of("call")
        .iter()
        .filter(|leaf| leaf["method"] == "tools/call" && leaf["forwarded"] == true)
        .count();
    assert!(executed <= recorded, "{executed} calls executed, {recorded} on record");
    server.verify()?.exits(0);

    let ready = |url: &str| {
        http::block(async {
            let answer = http::client().get(format!("{url}/readyz")).send().await?;
            Ok::<_, anyhow::Error>(answer.status().as_u16())
        })
    };
    assert_eq!(ready(&server.url)?, 503, "ready, with a full disk");
    disk.free()?;
    // With room again, work goes on by itself, and after a restart as well.
    assert_eq!(ready(&server.url)?, 200);
    assert_eq!(call("room again")?.text(), "noted: room again");
    let executed = world.executed().len();
    server.restart()?;
    let connected = alice.connect("ledger")?;
    let target = connected.target();
    let seen = Client::TypeScript1.call(
        world,
        alice.home(),
        &target,
        "note",
        &json!({"text": "after"}),
    )?;
    assert_eq!(seen.text(), "noted: after");
    assert_eq!(world.executed().len(), executed + 1);
    server.verify()?.exits(0);
    drop(server);
    Ok(())
}

fn a_disk_that_is_full_from_the_start(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let disk = Disk::mount(world, "1m")?;
    disk.fill()?;
    let config = Site::new(world, &idp).data_dir(disk.path()).write()?;
    let output = serve_refuses(world, &config)?.exits(1);
    assert!(output.stderr.contains(&disk.path().display().to_string()), "{output:#?}");
    Ok(())
}

fn a_read_only_disk(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let disk = Disk::mount(world, "16m")?;
    let site = Site::new(world, &idp).http("ledger", &ledger.url).data_dir(disk.path());
    let config = site.write()?;
    // A log exists already: the server was healthy once.
    drop(site.start()?);
    disk.remount("ro")?;
    let output = serve_refuses(world, &config)?.exits(1);
    assert!(output.stderr.contains(&disk.path().display().to_string()), "{output:#?}");
    // Verifying needs to write nothing.
    let mut verify = world.command(crate::support::site::MCPX)?;
    verify.args(["audit", "verify", "--dir"]).arg(disk.path());
    crate::support::Proc::run(world, "audit verify", verify)?.exits(0);
    Ok(())
}

/// A small file system of its own, mounted for one story.
struct Disk {
    path: PathBuf,
}

impl Disk {
    fn mount(world: &World, size: &str) -> anyhow::Result<Self> {
        let path = world.dir().join("disk");
        fs::create_dir_all(&path)?;
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "mcpx-story"])
            .arg(&path)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self { path }),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(Skip(format!("a small disk cannot be mounted (needs root): {why}")).into())
            }
            Err(error) => Err(Skip(format!("mount cannot be run: {error}")).into()),
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Writes until there is not one byte left.
    fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::create(self.path.join("filler"))?;
        for block in [64 * 1024, 4096, 1] {
            let block = vec![0u8; block];
            while file.write_all(&block).is_ok() {}
        }
        Ok(())
    }

    fn free(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.path.join("filler"))?)
    }

    fn remount(&self, how: &str) -> anyhow::Result<()> {
        let options = format!("remount,{how}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.path).output()?;
        anyhow::ensure!(done.status.success(), "{done:?}");
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, in case a process of a failed story still has a file open there.
        Command::new("umount").arg("--lazy").arg(&self.path).output().ok();
    }
}
