//! What a fresh Debian lacks, installed by the package manager where that is possible.

use std::process::{Command, Stdio};

/// Whether a shell line succeeds, quietly.
fn succeeds(line: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(line).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.status().is_ok_and(|status| status.success())
}

/// Whether a program can be run.
pub fn has(program: &str) -> bool {
    succeeds(&format!("command -v {program}"))
}

/// Sees to it that `check`, a shell line, succeeds: installs `packages` if it does not. Says
/// whether it succeeds in the end. Needs root and the registry of Debian's packages.
pub fn provides(check: &str, packages: &[&str]) -> bool {
    if succeeds(check) {
        return true;
    }
    if !has("apt-get") || !succeeds("[ \"$(id -u)\" = 0 ]") {
        return false;
    }
    let packages = packages.join(" ");
    eprintln!("installing {packages} with apt-get …");
    succeeds("apt-get update -qq");
    succeeds(&format!(
        "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends {packages}"
    ));
    succeeds(check)
}
