//! What this process is and may do.

use std::path::PathBuf;

use rustix::process::{Gid, getegid, geteuid, getgroups};

use crate::config::{KeyQuota, Process};

/// This process.
pub fn process() -> Process {
    let user = geteuid().as_raw();
    let mut groups: Vec<u32> = getgroups().unwrap_or_default().into_iter().map(Gid::as_raw).collect();
    groups.push(getegid().as_raw());
    Process {
        state_directory: directory("STATE_DIRECTORY"),
        runtime_directory: directory("RUNTIME_DIRECTORY"),
        credentials_directory: directory("CREDENTIALS_DIRECTORY"),
        program: std::env::current_exe().ok(),
        user,
        groups,
        may_chown: has_cap_chown(),
        key_quota: key_quota(user),
    }
}

/// The first directory of the variable: systemd separates several by colons.
fn directory(variable: &str) -> Option<PathBuf> {
    let value = std::env::var(variable).ok()?;
    value.split(':').next().filter(|path| path.starts_with('/')).map(PathBuf::from)
}

/// CAP_CHOWN is bit 0 of the effective set (capabilities(7)).
fn has_cap_chown() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|caps| caps & 1 != 0)
}

fn key_quota(user: u32) -> Option<KeyQuota> {
    let prefix = if user == 0 { "root_" } else { "" };
    let read =
        |name: &str| std::fs::read_to_string(format!("/proc/sys/kernel/keys/{prefix}{name}")).ok()?.trim().parse().ok();
    Some(KeyQuota { keys: read("maxkeys")?, bytes: read("maxbytes")? })
}
