//! What a config is read against: the directories that systemd gives, and what this process may do.

use std::path::PathBuf;

/// The machine as the config sees it.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// `$STATE_DIRECTORY`, the first of its directories.
    pub state_directory: Option<PathBuf>,
    /// `$RUNTIME_DIRECTORY`, the first of its directories.
    pub runtime_directory: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials_directory: Option<PathBuf>,
    /// Who we are.
    pub user: u32,
    /// The groups we are in, our own among them.
    pub groups: Vec<u32>,
    /// Whether files can be given away (CAP_CHOWN).
    pub may_chown: bool,
    /// How many keys, and bytes of keys, our user may hold; `None` where the kernel does not say.
    pub key_quota: Option<KeyQuota>,
}

/// The kernel's limits on one user's keys, from `/proc/sys/kernel/keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyQuota {
    /// `maxkeys`, or for root `root_maxkeys`.
    pub keys: u64,
    /// `maxbytes`, or for root `root_maxbytes`.
    pub bytes: u64,
}

impl Process {
    /// Of this process.
    pub fn from_env() -> Self {
        let user = rustix::process::geteuid().as_raw();
        let mut groups: Vec<u32> =
            rustix::process::getgroups().unwrap_or_default().into_iter().map(rustix::process::Gid::as_raw).collect();
        groups.push(rustix::process::getegid().as_raw());
        Self {
            state_directory: directory("STATE_DIRECTORY"),
            runtime_directory: directory("RUNTIME_DIRECTORY"),
            credentials_directory: directory("CREDENTIALS_DIRECTORY"),
            user,
            groups,
            may_chown: has_cap_chown(),
            key_quota: key_quota(user),
        }
    }

    /// The group by default: for the user that the packages made it for, and whoever else can give files to it. Somebody
    /// who tries the daemon at home has no such group, and must not fail for it.
    pub(crate) fn default_group(&self, name: &str) -> Option<u32> {
        let group = group_id(name)?;
        let made_for_us = user_id("corptokend") == Some(self.user);
        (self.may_give_to(group) || made_for_us).then_some(group)
    }

    /// Whether files can be given to the group.
    pub(crate) fn may_give_to(&self, group: u32) -> bool {
        self.may_chown || self.groups.contains(&group)
    }
}

/// The id of the user of this name.
pub(crate) fn user_id(name: &str) -> Option<u32> {
    nix::unistd::User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
}

/// The id of the group of this name.
pub(crate) fn group_id(name: &str) -> Option<u32> {
    nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

/// systemd separates several by colons; the first is the one that is meant.
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
