//! Every key that there is, table by table: the one list that the reading, the "did you mean" and the masking of
//! secrets go by.

/// One table and the keys that it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownKeys {
    /// How the table is called in messages.
    pub table: &'static str,
    /// Its keys.
    pub keys: &'static [&'static str],
}

pub(crate) const TOP: KnownKeys =
    KnownKeys { table: "the config", keys: &["api", "limits", "state", "control", "log", "defaults", "app"] };
pub(crate) const API: KnownKeys =
    KnownKeys { table: "[api]", keys: &["timeout", "connect_timeout", "max_in_flight", "ca_file", "local_address"] };
pub(crate) const LIMITS: KnownKeys = KnownKeys { table: "[limits]", keys: &["total"] };
pub(crate) const STATE: KnownKeys = KnownKeys { table: "[state]", keys: &["path"] };
pub(crate) const CONTROL: KnownKeys = KnownKeys { table: "[control]", keys: &["socket", "mode", "group"] };
pub(crate) const LOG: KnownKeys = KnownKeys { table: "[log]", keys: &["format", "level"] };
pub(crate) const DEFAULTS: KnownKeys = KnownKeys {
    table: "[defaults]",
    keys: &["endpoint", "proxy", "rate", "refresh", "retry", "on_remove", "on_expiry", "enabled", "sink"],
};
pub(crate) const APP: KnownKeys = KnownKeys {
    table: "[app.NAME]",
    keys: &[
        "client_id",
        "client_secret",
        "corp_ids",
        "tenant",
        "endpoint",
        "proxy",
        "rate",
        "refresh",
        "retry",
        "on_remove",
        "on_expiry",
        "enabled",
        "sink",
    ],
};
pub(crate) const REFRESH: KnownKeys = KnownKeys { table: "refresh", keys: &["at", "jitter"] };
pub(crate) const RETRY: KnownKeys = KnownKeys { table: "retry", keys: &["min", "max"] };
pub(crate) const CLIENT_SECRET: KnownKeys = KnownKeys { table: "client_secret", keys: &["file", "credential", "env"] };
pub(crate) const TENANT: KnownKeys = KnownKeys { table: "[app.NAME.tenant.CORP_ID]", keys: &["name", "sink"] };
pub(crate) const SINK: KnownKeys = KnownKeys {
    table: "sink",
    keys: &["file", "keyring", "format", "template", "mode", "dir_mode", "owner", "group", "trust_dir"],
};

/// All tables.
const ALL: [KnownKeys; 13] =
    [TOP, API, LIMITS, STATE, CONTROL, LOG, DEFAULTS, APP, REFRESH, RETRY, CLIENT_SECRET, TENANT, SINK];

/// All tables with their keys, for documentation that is checked against them.
pub fn known_keys() -> &'static [KnownKeys] {
    &ALL
}

/// Whether any table knows `key`.
pub(crate) fn is_known(key: &str) -> bool {
    ALL.iter().any(|table| table.keys.contains(&key))
}

/// Whether `key` may be shown: it is a key of some table, or looks like a misspelt one. Any other word, in the place of a
/// key, may be a secret that a hasty hand pasted there.
pub(crate) fn is_showable(key: &str) -> bool {
    is_known(key) || ALL.iter().any(|table| table.nearest(key).is_some())
}

impl KnownKeys {
    /// The key of this table that `key` is a misspelling of.
    fn nearest(&self, key: &str) -> Option<&'static str> {
        let length = key.chars().count();
        let far = |known: &str| (known.len() / 3).max(1);
        // Their lengths tell of most that they are further apart, which spares a long file minutes.
        let candidates =
            self.keys.iter().filter(|known| known.len().abs_diff(length) <= far(known) || is_a_word(key, known));
        let distances = candidates.map(|known| (distance(key, known), *known));
        let near = distances.filter(|(distance, known)| *distance <= far(known)).min();
        near.map(|(_, known)| known)
    }

    /// What the operator may have meant by `key`, as a remedy. The text never holds `key` itself, unless that is known.
    pub(crate) fn suggest(&self, key: &str) -> String {
        if let Some(known) = self.nearest(key) {
            return format!("did you mean `{known}`?");
        }
        let elsewhere: Vec<&str> = ALL.iter().filter(|t| t.keys.contains(&key)).map(|t| t.table).collect();
        if elsewhere.is_empty() {
            format!("{} knows {}", self.table, listed(self.keys))
        } else {
            format!("`{key}` belongs into {}", elsewhere.join(" or "))
        }
    }
}

/// How far two keys are apart; a key that is a word of the other (`secret` of `client_secret`) is near it.
fn distance(key: &str, known: &str) -> usize {
    if is_a_word(key, known) { 1 } else { strsim::damerau_levenshtein(key, known) }
}

fn is_a_word(key: &str, known: &str) -> bool {
    key.len() > 2 && known.split('_').any(|word| word == key)
}

/// `` `a`, `b` ``
pub(crate) fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_gets_its_neighbour_and_a_misplaced_one_its_table() {
        assert_eq!(API.suggest("conect_timeout"), "did you mean `connect_timeout`?");
        assert_eq!(APP.suggest("client_secert"), "did you mean `client_secret`?");
        assert_eq!(APP.suggest("secret"), "did you mean `client_secret`?");
        assert_eq!(TOP.suggest("apps"), "did you mean `app`?");
        assert_eq!(LIMITS.suggest("rate"), "`rate` belongs into [defaults] or [app.NAME]");
        assert_eq!(LIMITS.suggest("zzz"), "[limits] knows `total`");
    }
}
