//! Names: of apps, organisations and tenants, what they may look like, and the texts that they are filled into.

mod compact;
mod ids;
mod invisible;
mod template;

pub use ids::{AppName, ClientId, CorpId, InvalidName, Names, Slot, TenantId, TenantName, Ticket};
pub use invisible::{first_invisible, is_invisible};
pub use template::{Expansion, InvalidTemplate, Placeholder, Template};
