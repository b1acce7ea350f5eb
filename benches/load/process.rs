//! What `/proc` tells of a process, and how one that was started here ends.

use std::process::Child;
use std::time::{Duration, Instant};

/// A process of ours; ended when this is dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        #[cfg(unix)]
        {
            let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
            let told = pid.is_some_and(|pid| {
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok()
            });
            let deadline = Instant::now() + Duration::from_secs(10);
            while told && Instant::now() < deadline {
                if !matches!(self.0.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// User and system time of a process so far; nothing where there is no `/proc`.
pub fn cpu(pid: u32) -> Option<Duration> {
    // To the nanosecond, but for one thread: of many, some may have ended.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.count();
    let exact = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok();
    let exact = exact.as_deref().and_then(|text| text.split(' ').next()?.parse().ok());
    if let Some(nanoseconds) = exact.filter(|_| threads == 1) {
        return Some(Duration::from_nanos(nanoseconds));
    }
    let fields = stat(pid)?;
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // USER_HZ is 100 on every Linux that Rust runs on.
    Some(Duration::from_millis(ticks * 10))
}

/// The processes that this one started and that still run.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parent = |child: u32| stat(child)?.get(1)?.parse::<u32>().ok();
    all.filter(|child| parent(*child) == Some(pid)).collect()
}

/// The fields of `/proc/PID/stat` from the third on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold anything.
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// The second word of a process's command line.
pub fn first_argument(pid: u32) -> Option<String> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    line.split('\0').nth(1).map(str::to_owned)
}

/// Resident memory in MB (10⁶ bytes).
pub fn resident(pid: u32) -> Option<f64> {
    status(pid, "VmRSS:")
}

/// The most that was resident since the start, or since [`reset_peak`], in MB.
pub fn peak(pid: u32) -> Option<f64> {
    status(pid, "VmHWM:")
}

/// Lets [`peak`] begin anew; whether the system allows it.
pub fn reset_peak(pid: u32) -> bool {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok()
}

fn status(pid: u32, name: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// Raises the limit of open files of this process, and of those that it starts from now on, as
/// near to `wanted` as the system allows; what it is then.
#[cfg(unix)]
pub fn raise_open_files(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let most = now.maximum.unwrap_or(u64::MAX);
    for limit in [wanted.max(most), most] {
        let asked = Rlimit { current: Some(wanted.min(limit)), maximum: Some(limit) };
        if setrlimit(Resource::Nofile, asked).is_ok() {
            break;
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(not(unix))]
pub fn raise_open_files(wanted: u64) -> u64 {
    wanted
}
