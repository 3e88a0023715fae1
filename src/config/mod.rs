//! Text to [`Config`], and nothing but text: no file, account or clock is looked at here.
//!
//! In: [`Sources`], the texts, and the [`Process`]. [`Draft::read`] parses and reads them; [`Draft::needs`] says what must be
//! looked up on the machine, which `crate::environment` does; [`Draft::check`] takes that and makes a [`Config`] and a
//! [`Report`] that holds all faults at once. Out: those two, and the [`Difference`] of two configs.
//!
//! Imports run one way: `schema` and `model` know nothing of the others, then come `diagnostics`, `parse`, `read`, `check`; `diff`
//! needs the model alone.

mod check;
mod diagnostics;
mod diff;
mod environment;
mod model;
mod parse;
mod read;
pub mod schema;

pub use check::Checked;
pub use check::capacity::{AppCapacity, CapacityReport, Figures, capacity};
pub use diagnostics::report::{Diagnostic, Location, Report, Severity};
pub(crate) use diagnostics::sources::drop_ins_of;
pub use diagnostics::sources::{Source, Sources, TextOrigin};
pub use diff::mass_removal::keep_removed;
pub use diff::{AppDifference, ChangeCounts, Difference, Fate, Vacated, diff};
pub use environment::{
    Account, CaFile, CaOutcome, Environment, InputFault, KeyQuota, Needs, Process, SecretInput, SecretOutcome,
};
pub use model::{
    ApiConfig, AppConfig, Config, ControlConfig, LimitsConfig, LogConfig, OwnFiles, StateConfig, TenantOverrides,
};
pub use read::{Draft, Outline};

/// A text that was checked on a machine where every secret is good.
#[cfg(test)]
fn check_text(sources: &Sources) -> Checked {
    let draft = Draft::read(sources, &Process::default());
    let outcome = |_| SecretOutcome::Good(crate::domain::Fingerprint::of(b"secret"));
    let input = |nth| SecretInput { outcome: outcome(nth), dangers: Vec::new() };
    let secrets = draft.needs().secrets.iter().map(input).collect();
    draft.check(&Environment { secrets, ..Environment::default() })
}
