//! Looks up users and groups by their names, with a time limit: the database may be a server (LDAP, sssd).

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use nix::unistd::{Group, User};

use super::time_limit::{self, PathTask};
use crate::config::Account;
use crate::system::blocking::{Blocking, Unfinished};

/// The most names whose look-up hangs at once.
const MOST_OUTSTANDING: usize = 64;

static ACCOUNTS: LazyLock<Blocking<Account>> = LazyLock::new(|| Blocking::new("accounts", MOST_OUTSTANDING));

/// Looks up users and groups side by side.
pub(super) fn look_up(
    users: &BTreeSet<String>,
    groups: &BTreeSet<String>,
) -> (HashMap<String, Account>, HashMap<String, Account>) {
    let of_user = users.iter().map(|name| {
        let own = name.clone();
        PathTask::new(format!("user {name}"), move || {
            account(User::from_name(&own).map(|user| user.map(|u| u.uid.as_raw())))
        })
    });
    let of_group = groups.iter().map(|name| {
        let own = name.clone();
        PathTask::new(format!("group {name}"), move || {
            account(Group::from_name(&own).map(|group| group.map(|g| g.gid.as_raw())))
        })
    });
    let mut found = time_limit::run_all(&ACCOUNTS, of_user.chain(of_group).collect()).into_iter().map(answer);
    let users = users.iter().cloned().zip(found.by_ref()).collect();
    (users, groups.iter().cloned().zip(found).collect())
}

/// A database that fails is one without the account, as for every other program.
fn account(found: nix::Result<Option<u32>>) -> Account {
    found.ok().flatten().map_or(Account::Missing, Account::Id)
}

fn answer(found: Result<Account, Unfinished>) -> Account {
    found.unwrap_or_else(|why| Account::Unanswered(why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_names_are_all_answered() {
        let users: BTreeSet<String> = (0..1000).map(|n| format!("no-such-user-{n}")).collect();
        let (found, _) = look_up(&users, &BTreeSet::new());
        let wrong: Vec<_> = found.iter().filter(|(_, account)| **account != Account::Missing).collect();
        assert!(found.len() == 1000 && wrong.is_empty(), "{} of {}: {:?}", wrong.len(), found.len(), wrong.first());
    }
}
