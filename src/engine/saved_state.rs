//! What outlives a restart besides the tokens: failures and refusals, open breakers, slower rates, bans.
//!
//! Each change of it comes out as [`Action::Save`]. What a predecessor saved comes in before the plan, and is taken up when
//! the app, the origin or the tenant is added that it is about.

use std::collections::BTreeMap;

use super::apps::{CredentialsBreaker, Origin};
use super::messages::{Action, Notice, Reminder};
use super::{AppIx, Engine};
use crate::domain::{BootMs, Now, OriginId, SavedKey, SavedState, Slot, TenantId, Wait};

/// What a predecessor saved of apps, origins and tenants that are yet to be added.
#[derive(Default)]
pub(super) struct Restored(BTreeMap<SavedKey, SavedState>);

impl Restored {
    fn take(&mut self, key: &SavedKey) -> Option<SavedState> {
        self.0.remove(key)
    }

    /// Earlier releases saved a ban and a pace for all origins together; each origin takes them up.
    fn shared(&self, key: &SavedKey) -> Option<SavedState> {
        self.0.get(key).cloned()
    }
}

impl Engine {
    pub(super) fn restore(&mut self, now: Now, saved: Vec<(SavedKey, SavedState)>) {
        for (key, state) in saved {
            let known: Vec<OriginId> = self.origins.keys().copied().collect();
            match key {
                SavedKey::Ban(id) | SavedKey::Pace(id) if known.contains(&id) => self.restore_late(now, id, &state),
                SavedKey::EveryBan | SavedKey::EveryPace => {
                    // From now on it is saved by origin.
                    self.save(key.clone(), None);
                    known.into_iter().for_each(|id| self.restore_late(now, id, &state));
                    self.restored.0.insert(key, state);
                }
                _ => _ = self.restored.0.insert(key, state),
            }
        }
    }

    /// What was saved of an origin that is called already: the state could not be read at the start. What this process knows
    /// better is not taken up, and is replaced in the state.
    fn restore_late(&mut self, now: Now, id: OriginId, state: &SavedState) {
        let total = self.dispatcher.total.rate();
        let origin = self.origin_mut(id);
        match *state {
            SavedState::Paused(wait) => {
                let until = wait.end(now);
                if origin.ban().is_none() && !origin.was_served() && until > now.boot {
                    let failure = origin.restore_ban(now.boot, until).failure.clone();
                    self.notify(Notice::Banned { origin: id, failure, for_ms: until.since(now.boot) });
                }
                self.save_ban(now, id);
            }
            SavedState::Slowed { share, hold } => {
                if origin.percent() == 100 {
                    origin.restore_pace(now.boot, total, share, hold.end(now));
                }
                self.save_pace(now, id);
            }
            _ => return,
        }
        self.update_eligibility_on_origin(now, id);
    }

    /// An origin that is new here, with what was saved of it. A ban whose time is over by now still ends with one probe.
    pub(super) fn restored_origin(&mut self, now: Now, id: OriginId) -> Origin {
        let mut origin = Origin::default();
        let ban = self.restored.take(&SavedKey::Ban(id));
        let pace = self.restored.take(&SavedKey::Pace(id));
        let inherits = ban.is_none() && pace.is_none();
        if let Some(SavedState::Paused(wait)) = ban.or_else(|| self.restored.shared(&SavedKey::EveryBan)) {
            origin.restore_ban(now.boot, wait.end(now));
        }
        let pace = pace.or_else(|| self.restored.shared(&SavedKey::EveryPace));
        if let Some(SavedState::Slowed { share, hold }) = pace {
            origin.restore_pace(now.boot, self.dispatcher.total.rate(), share, hold.end(now));
        }
        if inherits {
            self.save_origin(id, origin.to_saved(now));
        }
        origin
    }

    /// Takes up what was saved of an app that is new here.
    pub(super) fn restore_app(&mut self, now: Now, ix: AppIx) {
        let app = &mut self.apps[ix];
        let broken = self.restored.take(&SavedKey::Breaker(app.name.clone()));
        let slowed = self.restored.take(&SavedKey::Rate(app.name.clone()));
        if let Some(SavedState::Broken { kind, probes, probe }) = broken {
            let (opened, probe_at, reminder) = (now.boot, probe.end(now), Reminder::reported(now.boot, kind));
            app.credentials_breaker = Some(CredentialsBreaker { kind, opened, probes, probe_at, reminder });
        }
        if let Some(SavedState::Slowed { share, hold }) = slowed {
            app.limiter.resume(now.boot, share, hold.end(now));
        }
    }

    /// Takes up what was saved of a tenant that is new here. Returns when its next call is due, where that says so.
    pub(super) fn restore_tenant(&mut self, now: Now, slot: Slot, id: &TenantId) -> Option<BootMs> {
        if self.restored.0.is_empty() {
            return None;
        }
        let saved = self.restored.take(&SavedKey::Tenant(id.clone()))?;
        let tenant = &mut self.tenants[slot];
        tenant.is_saved = true;
        match saved {
            // A failure from before the token was obtained was left behind by another version, and is over.
            SavedState::Failing(failing) if tenant.token.is_none_or(|t| t.requested_at <= failing.next.told) => {
                let due = failing.next.end(now);
                tenant.failures = failing.failures;
                self.tenants.failures.restore(now, slot, failing);
                Some(due)
            }
            SavedState::Unextended(fingerprint) => {
                let token = tenant.token.filter(|t| t.fingerprint == fingerprint && t.requested_at <= now.wall);
                token.map(|token| token.expires_boot)
            }
            _ => None,
        }
    }

    /// A tenant's call failed, or when it is called next is told on another clock.
    pub(super) fn save_failure(&mut self, now: Now, slot: Slot) {
        let (Some(failure), tenant) = (self.tenants.failure(slot), &self.tenants[slot]) else { return };
        let failing = failure.to_saved(tenant.failures, Wait::until(now, tenant.due_at));
        self.tenants[slot].is_saved = true;
        self.save_tenant(slot, Some(SavedState::Failing(failing)));
    }

    /// The tenant's token does not live longer by asking again.
    pub(super) fn save_unextended(&mut self, slot: Slot) {
        let tenant = &mut self.tenants[slot];
        let Some(token) = tenant.token else { return };
        tenant.is_saved = true;
        self.save_tenant(slot, Some(SavedState::Unextended(token.fingerprint)));
    }

    /// There is nothing to save of a tenant any more.
    pub(super) fn clear_saved(&mut self, slot: Slot) {
        if std::mem::take(&mut self.tenants[slot].is_saved) {
            self.save_tenant(slot, None);
        }
    }

    fn save_tenant(&mut self, slot: Slot, state: Option<SavedState>) {
        if let Some(id) = self.id(slot) {
            self.save(SavedKey::Tenant(id), state);
        }
    }

    pub(super) fn save_breaker(&mut self, now: Now, ix: AppIx) {
        let app = &self.apps[ix];
        let state = app.credentials_breaker.as_ref().map(|open| open.to_saved(now));
        self.save(SavedKey::Breaker(app.name.clone()), state);
    }

    pub(super) fn save_rate(&mut self, now: Now, ix: AppIx) {
        let app = &self.apps[ix];
        self.save(SavedKey::Rate(app.name.clone()), app.limiter.to_saved(now));
    }

    pub(super) fn save_pace(&mut self, now: Now, id: OriginId) {
        let (_, pace) = self.origin(id).to_saved(now);
        self.save(SavedKey::Pace(id), pace);
    }

    pub(super) fn save_ban(&mut self, now: Now, id: OriginId) {
        let (ban, _) = self.origin(id).to_saved(now);
        self.save(SavedKey::Ban(id), ban);
    }

    /// Saves what there is to save of an origin.
    fn save_origin(&mut self, id: OriginId, (ban, pace): (Option<SavedState>, Option<SavedState>)) {
        ban.into_iter().for_each(|ban| self.save(SavedKey::Ban(id), Some(ban)));
        pace.into_iter().for_each(|pace| self.save(SavedKey::Pace(id), Some(pace)));
    }

    /// An app leaves the config.
    pub(super) fn clear_saved_app(&mut self, now: Now, ix: AppIx) {
        let app = &mut self.apps[ix];
        let key = SavedKey::Rate(app.name.clone());
        let is_slowed = app.limiter.to_saved(now).is_some();
        if app.credentials_breaker.take().is_some() {
            self.save_breaker(now, ix);
        }
        if is_slowed {
            self.save(key, None);
        }
    }

    /// Saves what there is to save of apps and origins, on the wall clock of today.
    pub(super) fn save_groups(&mut self, now: Now) {
        let origins: Vec<OriginId> = self.origins.keys().copied().collect();
        for id in origins {
            self.save_origin(id, self.origin(id).to_saved(now));
        }
        for ix in self.apps.numbers() {
            if self.apps[ix].credentials_breaker.is_some() {
                self.save_breaker(now, ix);
            }
            if self.apps[ix].limiter.to_saved(now).is_some() {
                self.save_rate(now, ix);
            }
        }
    }

    /// The database lost what was saved: all of it is saved again.
    pub(super) fn save_all(&mut self, now: Now) {
        self.save_groups(now);
        let is_saved = |slot: &Slot| self.tenants[*slot].is_saved && !self.tenants[*slot].removed;
        let slots: Vec<Slot> = self.tenants.slots_from(Slot(0)).filter(is_saved).collect();
        for slot in slots {
            match self.tenants.failure(slot).is_some() {
                true => self.save_failure(now, slot),
                false => self.save_unextended(slot),
            }
        }
    }

    fn save(&mut self, key: SavedKey, state: Option<SavedState>) {
        self.outbox.push_back(Action::Save(key, state.map(Box::new)));
    }
}
