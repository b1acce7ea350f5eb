//! Landlock and seccomp: a profile put on this very thread.

use std::collections::BTreeMap;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, LandlockStatus, RestrictionStatus, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
    path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::{Profile, Report, SYSTEM};
use crate::audit::Confinement;

/// The newest interface that a full sandbox asks for: files, TCP, signals, abstract sockets.
const WANTED: ABI = ABI::V6;

/// What every program may write to.
const SINKS: &[&str] = &["/dev/null", "/dev/full"];

/// System calls that reach other processes, other file systems or the kernel's inside, and
/// `io_uring`, whose operations pass by this filter.
const FORBIDDEN: &[libc::c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// On x86-64 every call has a second number, of the x32 interface, and some have a third.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
#[cfg(target_arch = "x86_64")]
const X32_ONLY: std::ops::RangeInclusive<i64> = 512..=547;

pub(super) fn confine(profile: &Profile) -> Report {
    let mut missing = Vec::new();
    // A core dump would be a copy of what the child holds, in a place that nobody chose.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        missing.push(format!("core dumps stay possible ({error})"));
    }
    let (landlock, files) = match restrict_files(profile) {
        Err(error) => {
            missing.push(format!("Landlock: {error}"));
            (None, RulesetStatus::NotEnforced)
        }
        Ok(status) => {
            let abi = match status.landlock {
                LandlockStatus::Available { effective_abi, kernel_abi } => {
                    let known = u32::try_from(effective_abi as i32).ok();
                    let abi = kernel_abi.and_then(|abi| u32::try_from(abi).ok()).or(known);
                    if status.ruleset == RulesetStatus::PartiallyEnforced {
                        missing.push(format!(
                            "the kernel's Landlock (ABI {}) is older than {}",
                            abi.unwrap_or_default(),
                            WANTED as i32
                        ));
                    }
                    abi
                }
                LandlockStatus::NotEnabled => {
                    missing.push("Landlock is not enabled in the kernel".to_owned());
                    None
                }
                LandlockStatus::NotImplemented => {
                    missing.push("the kernel has no Landlock".to_owned());
                    None
                }
            };
            (abi, status.ruleset)
        }
    };
    let seccomp = match restrict_calls(profile) {
        Ok(()) => true,
        Err(why) => {
            missing.push(format!("seccomp: {why}"));
            false
        }
    };
    let held = (files == RulesetStatus::NotEnforced, seccomp);
    let level = match held {
        _ if missing.is_empty() && files == RulesetStatus::FullyEnforced => Confinement::Full,
        (true, false) => Confinement::None,
        _ => Confinement::Partial,
    };
    Report { level, landlock, seccomp, missing }
}

fn restrict_files(profile: &Profile) -> Result<RestrictionStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?;
    if !profile.network {
        rules = rules.handle_access(AccessNet::from_all(WANTED))?;
    }
    let read = AccessFs::from_read(WANTED);
    // What it wrote itself it may not run.
    let all = AccessFs::from_all(WANTED) & !AccessFs::Execute;
    let sink = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    rules
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, read))?
        .add_rules(path_beneath_rules(SINKS, sink))?
        .add_rules(path_beneath_rules(&profile.read, read))?
        .add_rules(path_beneath_rules(&profile.write, all))?
        .restrict_self()
}

fn restrict_calls(profile: &Profile) -> Result<(), String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| "not for this processor".to_owned())?;
    // No conditions: the call is refused whatever its arguments.
    let mut refused = BTreeMap::new();
    let mut refuse = |number: libc::c_long| {
        #[allow(clippy::useless_conversion, reason = "c_long is not 64 bits everywhere")]
        let number = i64::from(number);
        refused.insert(number, vec![]);
        #[cfg(target_arch = "x86_64")]
        refused.insert(number | X32, vec![]);
    };
    FORBIDDEN.iter().copied().for_each(&mut refuse);
    if !profile.network {
        // A pair of sockets reaches nobody else and stays.
        refuse(libc::SYS_socket);
    }
    #[cfg(target_arch = "x86_64")]
    refused.extend(X32_ONLY.map(|number| (number | X32, vec![])));
    let errno = u32::try_from(libc::EPERM).unwrap_or(1);
    let filter =
        SeccompFilter::new(refused, SeccompAction::Allow, SeccompAction::Errno(errno), arch)
            .map_err(|error| error.to_string())?;
    let program = BpfProgram::try_from(filter).map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())
}
