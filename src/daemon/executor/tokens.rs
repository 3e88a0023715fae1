//! Where a token is between its answer and its files: held in memory, being committed, or being read from the state.

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};

use crate::domain::{TenantId, Ticket, Token};
use crate::engine::Publish;

/// The tokens in memory, and what the store was asked for them.
#[derive(Default)]
pub(crate) struct Tokens {
    /// Not committed yet, or not yet attempted in every sink.
    held: HashMap<Ticket, Token>,
    /// Commits in flight.
    persisting: HashSet<Ticket>,
    /// Publications that wait for their token to be read; none of the lists is empty.
    loading: HashMap<Ticket, Vec<Publish>>,
}

impl Tokens {
    pub(crate) fn hold(&mut self, ticket: Ticket, token: Token) {
        self.held.insert(ticket, token);
    }

    pub(crate) fn get(&self, ticket: Ticket) -> Option<&Token> {
        self.held.get(&ticket)
    }

    pub(crate) fn release(&mut self, ticket: Ticket) {
        self.held.remove(&ticket);
    }

    /// A commit of a token begins, if the token is held.
    pub(crate) fn begin_commit(&mut self, ticket: Ticket) -> Option<Token> {
        let token = self.held.get(&ticket)?.clone();
        self.persisting.insert(ticket);
        Some(token)
    }

    /// The store reported a commit, or that it cannot commit for now. What it could not commit it reports a second time, once it
    /// is. Returns whether this is the first time.
    pub(crate) fn end_commit(&mut self, ticket: Ticket) -> bool {
        self.persisting.remove(&ticket)
    }

    /// Nobody waits for these commits any longer.
    pub(crate) fn give_up_commits(&mut self) -> impl Iterator<Item = Ticket> + '_ {
        self.persisting.drain()
    }

    pub(crate) fn is_committing(&self, ticket: Ticket) -> bool {
        self.persisting.contains(&ticket)
    }

    pub(crate) fn awaits_commits(&self) -> bool {
        !self.persisting.is_empty()
    }

    /// A publication waits for its token. Returns the tenant whose token is to be read, unless that is asked for already.
    pub(crate) fn begin_load(&mut self, publish: Publish) -> Option<TenantId> {
        match self.loading.entry(publish.ticket) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().push(publish);
                None
            }
            Entry::Vacant(none) => {
                let id = publish.id.clone();
                none.insert(vec![publish]);
                Some(id)
            }
        }
    }

    /// The publications that waited for the token of this ticket.
    pub(crate) fn end_load(&mut self, ticket: Ticket) -> Vec<Publish> {
        self.loading.remove(&ticket).unwrap_or_default()
    }

    /// Whose tokens are being read.
    pub(crate) fn loading(&self) -> Vec<(Ticket, TenantId)> {
        self.loading.iter().map(|(ticket, waiting)| (*ticket, waiting[0].id.clone())).collect()
    }

    pub(crate) fn awaits_loads(&self) -> bool {
        !self.loading.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::domain::{Fingerprint, LaneId, SinkId, SinkSetId, Slot, WallMs};

    const TICKET: Ticket = Ticket { slot: Slot(1), seq: 1 };

    fn publish(sink: u8) -> Publish {
        let (id, sinks, sink) = ("crm/ding1".parse().unwrap(), SinkSetId(0), SinkId(sink));
        let (fingerprint, expires_at) = (Fingerprint(7), WallMs(1));
        Publish { ticket: TICKET, id, sinks, sink, lane: LaneId(1), fingerprint, expires_at }
    }

    #[test]
    fn a_commit_ends_once_though_the_store_reports_it_twice() {
        let mut tokens = Tokens::default();
        assert!(tokens.begin_commit(TICKET).is_none(), "the token is not held");
        assert!(!tokens.awaits_commits());
        tokens.hold(TICKET, Token::new(Zeroizing::new("t".to_owned())).unwrap());
        assert!(tokens.begin_commit(TICKET).is_some() && tokens.awaits_commits());
        assert!(tokens.end_commit(TICKET));
        assert!(!tokens.end_commit(TICKET) && !tokens.awaits_commits());
        tokens.release(TICKET);
        assert!(tokens.get(TICKET).is_none());
    }

    #[test]
    fn a_token_is_read_once_for_all_sinks_that_wait_for_it() {
        let mut tokens = Tokens::default();
        assert_eq!(tokens.begin_load(publish(0)), Some(publish(0).id));
        assert_eq!(tokens.begin_load(publish(1)), None);
        assert_eq!(tokens.loading(), [(TICKET, publish(0).id)]);
        assert_eq!(tokens.end_load(TICKET), [publish(0), publish(1)]);
        assert!(!tokens.awaits_loads() && tokens.end_load(TICKET).is_empty());
    }
}
