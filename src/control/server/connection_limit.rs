//! Connections, shared out: a user's cost no other user his first one, and all of them together cost root nothing.

use std::collections::HashMap;

use tokio::task::Id;

use super::peer::Peer;

/// The most connections of one user that are served at once.
pub const CONNECTIONS_A_USER: usize = 16;

/// The most connections that are served at once: so many of root and of the daemon's user each, the rest of all others.
pub const MAX_CONNECTIONS: usize = GUESTS + FIRST_OF_GUESTS + 2 * CONNECTIONS_A_USER;

/// The most connections of all users but root and the daemon's.
const GUESTS: usize = 32;

/// So many more are served where they are their user's only one: or two users who hold all they get would lock a third out.
const FIRST_OF_GUESTS: usize = 32;

/// So many more of a user are told why they are not served. The rest is closed without a word.
const TURNED_AWAY_A_USER: usize = 4;

/// The most connections that are told so.
const TURNED_AWAY: usize = 64;

/// Who has which connection.
#[derive(Debug, Default)]
pub(super) struct Shares(HashMap<Id, (Peer, Place)>);

/// What a connection gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is served.
    Served,
    /// It is told that its user may not ask.
    Forbidden,
    /// It is told that its user has too many.
    UserCrowded,
    /// It is told that there are too many in all.
    Crowded,
}

impl Shares {
    /// What another connection of `peer` gets; `None`: nothing, not even a word.
    pub(super) fn place_for(&self, peer: Peer) -> Option<Place> {
        let of_user = |served: bool| self.count(|other, place| other == peer && (place == Place::Served) == served);
        let guests = self.count(|other, place| matches!(other, Peer::Guest(_)) && place == Place::Served);
        let most_guests = if of_user(true) == 0 { GUESTS + FIRST_OF_GUESTS } else { GUESTS };
        let place = match peer {
            Peer::Stranger(_) => Place::Forbidden,
            _ if of_user(true) >= CONNECTIONS_A_USER => Place::UserCrowded,
            Peer::Guest(_) if guests >= most_guests => Place::Crowded,
            _ => return Some(Place::Served),
        };
        let turned_away = self.count(|_, place| place != Place::Served);
        (of_user(false) < TURNED_AWAY_A_USER && turned_away < TURNED_AWAY).then_some(place)
    }

    /// A connection is served, or told off, by this task.
    pub(super) fn enter(&mut self, task: Id, peer: Peer, place: Place) {
        self.0.insert(task, (peer, place));
    }

    /// The task ended, however it did.
    pub(super) fn leave(&mut self, task: Id) {
        self.0.remove(&task);
    }

    fn count(&self, wanted: impl Fn(Peer, Place) -> bool) -> usize {
        self.0.values().filter(|(peer, place)| wanted(*peer, *place)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets as many connections of `peer` in as it gets, and counts them.
    async fn crowd(shares: &mut Shares, peer: Peer) -> (usize, usize) {
        let (mut served, mut turned_away) = (0, 0);
        while let Some(place) = shares.place_for(peer) {
            shares.enter(tokio::spawn(std::future::ready(())).id(), peer, place);
            *if place == Place::Served { &mut served } else { &mut turned_away } += 1;
        }
        (served, turned_away)
    }

    #[tokio::test]
    async fn nobody_crowds_another_user_out_and_everybody_together_not_root() {
        let mut shares = Shares::default();
        assert_eq!(crowd(&mut shares, Peer::Guest(1000)).await, (CONNECTIONS_A_USER, TURNED_AWAY_A_USER));
        assert_eq!(crowd(&mut shares, Peer::Guest(1001)).await.0, CONNECTIONS_A_USER);
        assert_eq!(crowd(&mut shares, Peer::Guest(1002)).await.0, 1, "two who hold all they get leave the third one");
        for uid in 1003..1100 {
            crowd(&mut shares, Peer::Guest(uid)).await;
        }
        assert_eq!(crowd(&mut shares, Peer::Stranger(5000)).await.0, 0);
        for keeper in [Peer::Keeper(0), Peer::Keeper(999)] {
            assert_eq!(crowd(&mut shares, keeper).await.0, CONNECTIONS_A_USER, "{keeper:?}");
        }
        let served = shares.count(|_, place| place == Place::Served);
        assert_eq!(served, MAX_CONNECTIONS);
        assert!(shares.0.len() <= MAX_CONNECTIONS + TURNED_AWAY);
    }
}
