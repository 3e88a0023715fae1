//! The rule, applied to one directory, link or file: who could change it, and who of them must not?

use std::fmt;
use std::path::Path;

use rustix::fs::FileType;
use rustix::process::{getegid, geteuid};

use super::acl::{Named, READ, WRITE};
use super::status::Status;

/// Who may change what decides where a secret or a token goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    users: Vec<u32>,
    groups: Vec<u32>,
}

/// What a directory, link or file is on the path of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A directory that is passed. A sticky bit is enough there: nobody can rename or remove what belongs to somebody else
    /// (inode(7)), and what belongs to a stranger is found out when it is passed itself.
    Passage,
    /// The directory in which a file is replaced: a stranger's entry there would be in the way, or be read instead.
    Final,
    /// A file that is read.
    File,
}

/// Strangers who could change something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Risk {
    /// Who could do what: "can be written by everybody (mode 0777)".
    pub what: String,
    /// The command that mends it.
    pub remedy: String,
    /// Whether it is the owner who is a stranger.
    pub by_owner: bool,
    /// The group that is a stranger, where it is the owning group alone.
    pub by_group: Option<u32>,
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Trusted {
    /// Whom the daemon's own inputs are trusted to: root, the daemon's user, root's group and the user's private group (the
    /// one of the same number, as useradd(8) makes it).
    pub fn daemon() -> Self {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        let mut groups = vec![0];
        groups.extend(Some(group).filter(|group| *group == user));
        Self { users: vec![0, user], groups }
    }

    /// Root, this user and root's group.
    pub fn of(user: u32) -> Self {
        Self { users: vec![0, user], groups: vec![0] }
    }

    /// And this user.
    #[must_use]
    pub fn and_user(mut self, user: Option<u32>) -> Self {
        self.users.extend(user);
        self
    }

    /// And the members of this group.
    #[must_use]
    pub fn and_group(mut self, group: u32) -> Self {
        self.groups.push(group);
        self
    }

    /// Who else could change what `path` is: its content, or, of a directory, what its entries lead to.
    pub fn risk(&self, path: &Path, status: &Status, role: Role) -> Option<Risk> {
        let mut found = Strangers::default();
        if !self.users.contains(&status.uid) {
            found.owner = Some(status.uid);
            let link = if status.kind == FileType::Symlink { "-h " } else { "" };
            found.remedies.push(format!("chown {link}root {}", path.display()));
        }
        let kept_by_sticky_bit = role == Role::Passage && status.is_sticky();
        if status.kind != FileType::Symlink && !kept_by_sticky_bit {
            self.writers(path, status, &mut found);
        }
        found.into_risk(status, "written")
    }

    /// Who else could read a secret in this file, or change it. What the mode says of the owning group is the owner's
    /// business, as long as root or the daemon is the owner: so packages hand a secret to the daemon (0640,
    /// root:corptokend). `members` are the groups that the daemon is in.
    pub fn readers(&self, path: &Path, status: &Status, members: &[u32]) -> Option<Risk> {
        let mut found = Strangers::default();
        for named in status.acl.granted(READ | WRITE) {
            match named {
                Named::User(user) if !self.users.contains(&user) => found.entry(path, named),
                Named::Group(group)
                    if group != status.gid && !self.groups.contains(&group) && !members.contains(&group) =>
                {
                    found.entry(path, named);
                }
                Named::User(_) | Named::Group(_) => {}
            }
        }
        found.into_risk(status, "read")
    }

    fn writers(&self, path: &Path, status: &Status, found: &mut Strangers) {
        if status.mode & 0o002 != 0 {
            found.everybody = true;
        }
        for named in status.acl.granted(WRITE) {
            match named {
                Named::Group(group) if self.groups.contains(&group) => {}
                Named::Group(group) if group == status.gid => found.group = Some(group),
                Named::User(user) if self.users.contains(&user) => {}
                Named::User(_) | Named::Group(_) => found.entry(path, named),
            }
        }
        let whose = match (found.everybody, found.group) {
            (true, None) => "o-w",
            (true, Some(_)) => "go-w",
            (false, Some(_)) => "g-w",
            (false, None) => return,
        };
        found.remedies.insert(0, format!("chmod {whose} {}", path.display()));
    }
}

#[derive(Default)]
struct Strangers {
    owner: Option<u32>,
    everybody: bool,
    group: Option<u32>,
    entries: Vec<String>,
    remedies: Vec<String>,
}

impl Strangers {
    /// An entry of an access control list.
    fn entry(&mut self, path: &Path, named: Named) {
        let (who, letter, id) = match named {
            Named::User(id) => ("user", 'u', id),
            Named::Group(id) => ("group", 'g', id),
        };
        self.entries.push(format!("{who} {id} (access control list)"));
        self.remedies.push(format!("setfacl -x {letter}:{id} {}", path.display()));
    }

    fn into_risk(self, status: &Status, done: &str) -> Option<Risk> {
        let Self { owner, everybody, group, entries, remedies } = self;
        let mut who = Vec::new();
        who.extend(everybody.then(|| "everybody".to_owned()));
        who.extend(group.map(|group| format!("group {group}")));
        let by_group = group.filter(|_| !everybody && owner.is_none() && entries.is_empty());
        let mode = if who.is_empty() { String::new() } else { format!(" (mode {:04o})", status.mode) };
        who.extend(entries);
        let owner_is_strange = owner.map(|owner| format!("belongs to user {owner}, who is a stranger here"));
        let can_be = (!who.is_empty()).then(|| format!("can be {done} by {}{mode}", who.join(", ")));
        let what = [owner_is_strange, can_be].into_iter().flatten().collect::<Vec<_>>().join(", and ");
        (!what.is_empty()).then(|| Risk { what, remedy: remedies.join(" && "), by_owner: owner.is_some(), by_group })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::permissions::Identity;
    use crate::system::permissions::acl::Acl;

    fn trusted() -> Trusted {
        Trusted { users: vec![0, 7], groups: vec![0, 8] }
    }

    fn status(kind: FileType, uid: u32, gid: u32, mode: u32) -> Status {
        let identity = Identity::of(&rustix::fs::stat("/").unwrap());
        Status { identity, kind, mode, uid, gid, acl: Acl::of_mode(mode, gid) }
    }

    fn risk(status: &Status, role: Role) -> Option<(String, String)> {
        trusted().risk(Path::new("/a"), status, role).map(|risk| (risk.what, risk.remedy))
    }

    #[test]
    fn what_only_trusted_people_can_write_is_no_risk() {
        let directory = FileType::Directory;
        for (uid, gid, mode) in [(0, 0, 0o755), (7, 9, 0o755), (0, 8, 0o2775), (0, 0, 0o775), (7, 8, 0o770)] {
            assert_eq!(risk(&status(directory, uid, gid, mode), Role::Final), None, "{uid} {gid} {mode:o}");
        }
    }

    #[test]
    fn a_stranger_is_named_with_the_command_that_shuts_him_out() {
        let directory = FileType::Directory;
        for (uid, gid, mode, what, remedy) in [
            (9, 0, 0o755, "belongs to user 9", "chown root /a"),
            (0, 0, 0o757, "can be written by everybody (mode 0757)", "chmod o-w /a"),
            (0, 9, 0o775, "can be written by group 9 (mode 0775)", "chmod g-w /a"),
            (0, 9, 0o777, "by everybody, group 9 (mode 0777)", "chmod go-w /a"),
        ] {
            let (found, mends) = risk(&status(directory, uid, gid, mode), Role::Passage).unwrap();
            assert!(found.contains(what) && mends == remedy, "{found}: {mends}");
        }
    }

    #[test]
    fn a_sticky_directory_may_be_passed_unless_it_is_a_strangers() {
        let mut tmp = status(FileType::Directory, 0, 0, 0o1777);
        assert_eq!(risk(&tmp, Role::Passage), None);
        assert!(risk(&tmp, Role::Final).is_some());
        tmp.uid = 9;
        assert!(risk(&tmp, Role::Passage).is_some());
        let file = status(FileType::RegularFile, 0, 0, 0o1666);
        assert!(risk(&file, Role::File).is_some(), "a sticky bit protects nothing in a file");
    }

    #[test]
    fn of_a_link_only_the_owner_counts() {
        assert_eq!(risk(&status(FileType::Symlink, 0, 0, 0o777), Role::Passage), None);
        assert!(risk(&status(FileType::Symlink, 9, 0, 0o777), Role::Passage).is_some());
    }
}
