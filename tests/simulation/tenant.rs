//! A tenant, as the simulation sees it.

use corptokend::domain::{FailureKind, Record};

use crate::endpoint::Issued;
use crate::saved_state::{Repeats, Silence};

/// How many sink roots there are.
pub(crate) const ROOTS: usize = 4;

/// What the database holds of a tenant's token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) token: u32,
    /// Which call brought it; `None`: it was read from the database, and the engine has numbered it anew.
    pub(crate) seq: Option<u32>,
    pub(crate) record: Record,
    /// Its life as the endpoint counts it: milliseconds of the simulation.
    pub(crate) from: u64,
    pub(crate) until: u64,
}

/// A tenant, as the simulation sees it. Moments are milliseconds of the simulation. A refresh is a dozen looks at it, so it lies on
/// whole cache lines, and tokens are short numbers.
#[repr(align(64))]
pub(crate) struct Tenant {
    pub(crate) app: u16,
    pub(crate) set: u8,
    pub(crate) present: bool,
    pub(crate) in_flight: bool,
    /// Counts how often it left.
    pub(crate) lives: u16,
    pub(crate) refuses: Option<FailureKind>,
    pub(crate) issued: Issued,
    pub(crate) kept: Option<Kept>,
    pub(crate) added: u64,
    pub(crate) called: u64,
    pub(crate) failures: u16,
    /// How long failures have kept it from a token since it got the last one.
    pub(crate) hindered: u64,
    /// How often the endpoint has answered with the same token.
    pub(crate) repeats: Repeats,
    /// The endpoint refused it, and must not be asked again before this is over.
    pub(crate) refused: Silence,
    /// Its token was read from the database, and no answer has confirmed it since.
    pub(crate) restored: bool,
    /// What its place below each root shows; 0: nothing.
    pub(crate) shown: [u32; ROOTS],
}

impl Tenant {
    pub(crate) fn new(app: u16, set: u8) -> Self {
        Self {
            app,
            set,
            present: false,
            in_flight: false,
            lives: 0,
            refuses: None,
            issued: Issued::default(),
            kept: None,
            added: 0,
            called: 0,
            failures: 0,
            hindered: 0,
            repeats: Repeats::default(),
            refused: Silence::default(),
            restored: false,
            shown: [0; ROOTS],
        }
    }

    /// New credentials are tried at once, whatever was asked before.
    pub(crate) fn forget_floor(&mut self) {
        self.called = 0;
        (self.repeats, self.refused) = (Repeats::default(), Silence::default());
    }

    /// The daemon has forgotten its calls and failures.
    pub(crate) fn forget_calls(&mut self) {
        (self.in_flight, self.failures) = (false, 0);
        self.forget_floor();
    }

    /// The daemon is gone; its successor knows what was committed.
    pub(crate) fn crash(&mut self) {
        (self.in_flight, self.called) = (false, 0);
        self.repeats.crash();
        self.refused.crash();
        self.restored = self.kept.is_some();
        if let Some(kept) = &mut self.kept {
            kept.seq = None;
        }
    }

    /// A token that was read from the database is told on the wall clock. When that is set, it may be asked for once more.
    pub(crate) fn clock_stepped(&mut self) {
        if self.restored {
            self.repeats = Repeats::default();
        }
    }
}
