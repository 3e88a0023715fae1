//! Names of apps, organisations and tenants, and the handles by which the engine knows them.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::compact::CompactText;
use super::invisible::first_invisible;

/// Why a name was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct InvalidName {
    /// The kind of name: "an app name", "a corp_id", …
    pub what: &'static str,
    /// What it must look like.
    pub rule: &'static str,
}

/// A checked name that is cheap to clone. Its text is shared, or stored inline where each tenant has one.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident($text:ty), $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($text);

        impl $name {
            /// The rule, in words, for messages.
            pub const RULE: &'static str = $rule;

            /// Checks `text` against the rule.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err(InvalidName { what: $what, rule: $rule }) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

name_type!(
    /// The operator's name for one application, the `crm` of `[app.crm]`.
    AppName(Arc<str>),
    "an app name",
    "lower-case letters, digits, `_` and `-`, beginning with a letter or digit, at most 64 characters",
    |text| {
        text.len() <= 64
            && text.bytes().all(|b| is_word(b) && !b.is_ascii_uppercase())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
    }
);

name_type!(
    /// An organisation, as the endpoint names it.
    CorpId(CompactText),
    "a corp_id",
    "1 to 64 letters, digits, `_` and `-`",
    |text| (1..=64).contains(&text.len()) && text.bytes().all(is_word)
);

name_type!(
    /// The public half of an app's credentials.
    ClientId(Arc<str>),
    "a client_id",
    "1 to 128 letters, digits, `.`, `_` and `-`, not beginning with `.`",
    |text| {
        (1..=128).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(|b| is_word(b) || b == b'.')
    }
);

name_type!(
    /// The operator's own name for a tenant, the value of `{name}`. It becomes part of paths, so it cannot hold a `/`, and of
    /// messages, so each of its characters is visible ([`is_invisible`](super::is_invisible)).
    TenantName(Arc<str>),
    "a tenant's name",
    "1 to 128 bytes without `/`, control and invisible characters, not beginning with `.`",
    |text| {
        (1..=128).contains(&text.len()) && !text.starts_with('.') && !text.contains('/') && first_invisible(text).is_none()
    }
);

/// A tenant: an app in an organisation, written `app/corp_id`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId {
    /// The app.
    pub app: AppName,
    /// The organisation.
    pub corp_id: CorpId,
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.corp_id)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TenantId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (app, corp_id) =
            text.split_once('/').ok_or(InvalidName { what: "a tenant", rule: "written `app/corp_id`" })?;
        Ok(Self { app: app.parse()?, corp_id: corp_id.parse()? })
    }
}

/// All names of a tenant: the values for placeholders in paths and templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// `{app}` and `{corp_id}`.
    pub id: TenantId,
    /// `{name}`, where the config gives one.
    pub name: Option<TenantName>,
    /// `{client_id}`.
    pub client_id: ClientId,
}

/// A tenant's index in the engine's table. Slots are reused after a tenant is removed; a [`Ticket`] tells old from new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// One call for one tenant. The sequence number goes on when a slot is reused, so a late answer to an old call, or to a call for a
/// removed tenant, never matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    /// The tenant.
    pub slot: Slot,
    /// The number of the call among that slot's.
    pub seq: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for bad in ["", "..", ".", "a/b", "a\0", "ä", &"x".repeat(65)] {
            assert!(CorpId::new(bad).is_err(), "{bad:?}");
            assert!(AppName::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "..", ".x", "a/b", "a\nb", "a\u{202e}b", "a\u{200b}"] {
            assert!(TenantName::new(bad).is_err(), "{bad:?}");
            assert!(ClientId::new(bad).is_err(), "{bad:?}");
        }
        assert!(AppName::new("Crm").is_err());
        assert!(AppName::new("-crm").is_err());
        assert!(CorpId::new("ding9f50b15bccd16741").is_ok());
        assert!(TenantName::new("阿里").is_ok());
    }

    #[test]
    fn a_tenant_is_written_app_slash_corp_id() {
        let id: TenantId = "crm/ding1".parse().unwrap();
        assert_eq!(id.to_string(), "crm/ding1");
        assert!("crm".parse::<TenantId>().is_err());
        assert!("crm/a/b".parse::<TenantId>().is_err());
    }
}
