//! How many connections are served at once. One user's connections never keep another user from his first one, and all
//! users together never keep root from theirs.

use std::collections::HashMap;

use tokio::task::Id;

use super::peer::Peer;

/// The most connections of one user that are served at once.
pub const CONNECTIONS_A_USER: usize = 16;

/// The most connections that are served at once: so many of root and of the daemon's user each, the rest of all others.
pub const MAX_CONNECTIONS: usize = MEMBERS + FIRST_OF_MEMBERS + 2 * CONNECTIONS_A_USER;

/// The most connections of all users but root and the daemon's.
const MEMBERS: usize = 32;

/// So many more are served if they are their user's only connection. Otherwise two users with all their connections would lock
/// a third one out.
const FIRST_OF_MEMBERS: usize = 32;

/// The most connections of one user that are told why they are not served. Further ones are closed without an answer.
const TURNED_AWAY_A_USER: usize = 4;

/// The most connections of all users that are told so.
const TURNED_AWAY: usize = 64;

/// The open connections, and whose they are.
#[derive(Debug, Default)]
pub(super) struct ConnectionLimits(HashMap<Id, (Peer, Admission)>);

/// What is done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is served.
    Served,
    /// It is told that its user may not ask.
    Forbidden,
    /// It is told that its user has too many connections.
    UserLimit,
    /// It is told that there are too many connections in all.
    TotalLimit,
}

impl ConnectionLimits {
    /// What is done with another connection of `peer`; `None`: it is closed without an answer.
    pub(super) fn admit(&self, peer: Peer) -> Option<Admission> {
        let of_user =
            |served: bool| self.count(|other, admission| other == peer && (admission == Admission::Served) == served);
        let members = self.count(|other, admission| matches!(other, Peer::Member(_)) && admission == Admission::Served);
        let most_members = if of_user(true) == 0 { MEMBERS + FIRST_OF_MEMBERS } else { MEMBERS };
        let admission = match peer {
            Peer::Stranger(_) => Admission::Forbidden,
            _ if of_user(true) >= CONNECTIONS_A_USER => Admission::UserLimit,
            Peer::Member(_) if members >= most_members => Admission::TotalLimit,
            _ => return Some(Admission::Served),
        };
        let turned_away = self.count(|_, admission| admission != Admission::Served);
        (of_user(false) < TURNED_AWAY_A_USER && turned_away < TURNED_AWAY).then_some(admission)
    }

    /// A connection was admitted so; `task` serves it.
    pub(super) fn insert(&mut self, task: Id, peer: Peer, admission: Admission) {
        self.0.insert(task, (peer, admission));
    }

    /// The task has ended.
    pub(super) fn remove(&mut self, task: Id) {
        self.0.remove(&task);
    }

    fn count(&self, wanted: impl Fn(Peer, Admission) -> bool) -> usize {
        self.0.values().filter(|(peer, admission)| wanted(*peer, *admission)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens as many connections of `peer` as are answered, and counts those served and those turned away.
    async fn fill(limits: &mut ConnectionLimits, peer: Peer) -> (usize, usize) {
        let (mut served, mut turned_away) = (0, 0);
        while let Some(admission) = limits.admit(peer) {
            limits.insert(tokio::spawn(std::future::ready(())).id(), peer, admission);
            *if admission == Admission::Served { &mut served } else { &mut turned_away } += 1;
        }
        (served, turned_away)
    }

    #[tokio::test]
    async fn no_user_locks_another_one_out_and_all_together_do_not_lock_out_root() {
        let mut limits = ConnectionLimits::default();
        assert_eq!(fill(&mut limits, Peer::Member(1000)).await, (CONNECTIONS_A_USER, TURNED_AWAY_A_USER));
        assert_eq!(fill(&mut limits, Peer::Member(1001)).await.0, CONNECTIONS_A_USER);
        assert_eq!(fill(&mut limits, Peer::Member(1002)).await.0, 1, "two users at their limit leave one for a third");
        for uid in 1003..1100 {
            fill(&mut limits, Peer::Member(uid)).await;
        }
        assert_eq!(fill(&mut limits, Peer::Stranger(5000)).await.0, 0);
        for privileged in [Peer::Privileged(0), Peer::Privileged(999)] {
            assert_eq!(fill(&mut limits, privileged).await.0, CONNECTIONS_A_USER, "{privileged:?}");
        }
        let served = limits.count(|_, admission| admission == Admission::Served);
        assert_eq!(served, MAX_CONNECTIONS);
        assert!(limits.0.len() <= MAX_CONNECTIONS + TURNED_AWAY);
    }
}
