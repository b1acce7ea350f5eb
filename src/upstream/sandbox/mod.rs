//! What a child may reach, and how much of that the kernel holds it to.
//!
//! A profile cannot be put on a child from outside without `unsafe` code between fork and exec, so
//! a child under one is started as `mcpx sandbox`: that process restricts itself ([`confine`]),
//! says on the first line of its stderr what it achieved, and becomes the child. Restrictions
//! outlive the exec and can never be taken off again.
//!
//! Files are Landlock's part, and on kernels that have it so are TCP, signals and abstract
//! sockets; seccomp refuses sockets of every kind and the system calls that reach other processes
//! or the kernel's inside. What is not allowed is refused: nothing of the data directory is ever
//! allowed, which configuration sees to.

#[cfg(target_os = "linux")]
mod linux;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::audit::Confinement;

/// Programs, libraries, and what they need of the system to run. Nothing here is anybody's secret:
/// `/etc` is not here as a whole, nor is `/proc`.
pub const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/locale.alias",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/passwd",
    "/etc/group",
    "/etc/mime.types",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/version",
    "/sys/devices/system/cpu",
];

/// How much a sandbox matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// There is none.
    #[default]
    Off,
    /// As much of it as the kernel can; what it cannot is on record.
    Try,
    /// All of it, or the child is not started.
    Require,
}

/// What a child may reach besides the system's programs and libraries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// How much it matters.
    pub mode: Mode,
    /// Files and folders that it may read and run.
    pub read: Vec<PathBuf>,
    /// Files and folders that it may write and read, but not run.
    pub write: Vec<PathBuf>,
    /// Whether it may open sockets.
    pub network: bool,
}

/// What the kernel holds a child to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// All, a part or nothing of the profile.
    pub level: Confinement,
    /// The version of Landlock's interface that is in force, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landlock: Option<u32>,
    /// Whether system calls are filtered.
    #[serde(default)]
    pub seccomp: bool,
    /// What is not held, and why not, a clause for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

impl Report {
    /// The report of a child that was given no sandbox.
    pub fn off() -> Self {
        Self { level: Confinement::Off, landlock: None, seccomp: false, missing: Vec::new() }
    }

    /// Nothing is held, for a reason.
    #[cfg(any(test, not(target_os = "linux")))]
    fn none(why: impl Into<String>) -> Self {
        Self { level: Confinement::None, missing: vec![why.into()], ..Self::off() }
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let level = match self.level {
            Confinement::Off => return "no sandbox".to_owned(),
            Confinement::None => "sandbox asked for, nothing held",
            Confinement::Partial => "sandbox in part",
            Confinement::Full => "sandbox in full",
        };
        let mut text = level.to_owned();
        if let Some(abi) = self.landlock {
            text.push_str(&format!(", Landlock ABI {abi}"));
        }
        if self.seccomp {
            text.push_str(", seccomp");
        }
        if !self.missing.is_empty() {
            text.push_str(&format!("; missing: {}", self.missing.join("; ")));
        }
        text
    }
}

/// Restricts this process, and every program that it becomes or starts, to a profile. Call it on
/// the thread that will exec: the kernel restricts threads.
///
/// Never fails: the report says how much is in force.
pub fn confine(profile: &Profile) -> Report {
    #[cfg(target_os = "linux")]
    return linux::confine(profile);
    #[cfg(not(target_os = "linux"))]
    {
        let _nothing_reads_it = profile;
        Report::none("this operating system has neither Landlock nor seccomp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_a_sentence() {
        assert_eq!(Report::off().summary(), "no sandbox");
        let none = Report::none("the kernel has no Landlock");
        assert_eq!(
            none.summary(),
            "sandbox asked for, nothing held; missing: the kernel has no Landlock"
        );
        let full =
            Report { level: Confinement::Full, landlock: Some(7), seccomp: true, missing: vec![] };
        assert_eq!(full.summary(), "sandbox in full, Landlock ABI 7, seccomp");
        let text = serde_json::to_string(&full).unwrap();
        assert_eq!(text, r#"{"level":"full","landlock":7,"seccomp":true}"#);
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), full);
    }
}
