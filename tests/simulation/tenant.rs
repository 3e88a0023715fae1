//! A tenant, as the world sees it.

use corptokend::domain::{FailureKind, Record};

use crate::endpoint::Issued;

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

/// A tenant, as the world sees it. Moments are milliseconds of the simulation. A refresh is a dozen looks at it, so it lies on
/// whole cache lines, and tokens are short numbers.
#[repr(align(128))]
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
    /// The token that the endpoint answered with last, and how often it has done so again.
    pub(crate) latest: u32,
    pub(crate) repeats: u16,
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
            latest: 0,
            repeats: 0,
            shown: [0; ROOTS],
        }
    }

    /// New credentials are tried at once, whatever was asked before.
    pub(crate) fn forget_floor(&mut self) {
        (self.called, self.repeats) = (0, 0);
    }

    /// The daemon that knew of calls and failures is gone, or has forgotten them.
    pub(crate) fn forget_calls(&mut self) {
        (self.in_flight, self.called, self.failures) = (false, 0, 0);
        self.repeats = 0;
    }
}
