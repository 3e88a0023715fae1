//! "Did you mean …?", and which unknown keys may be shown.

use super::{ALL, TableSchema, is_known};

/// Whether `key` may be shown: it is a key of some table, or looks like a misspelt one. Any other word in the place of a key may
/// be a secret that was pasted there by mistake.
pub(crate) fn is_showable(key: &str) -> bool {
    is_known(key) || ALL.iter().any(|table| table.nearest(key).is_some())
}

impl TableSchema {
    /// The key of this table that `key` is a misspelling of.
    pub(crate) fn nearest(&self, key: &str) -> Option<&'static str> {
        let length = key.chars().count();
        let limit = |known: &str| (known.len() / 3).max(1);
        // A difference in length is a lower bound of the distance; without it a long file takes minutes.
        let near = |known: &&str| known.len().abs_diff(length) <= limit(known) || is_a_word(key, known);
        let candidates = self.keys().map(|known| known.name).filter(near);
        let distances = candidates.map(|known| (distance(key, known), known));
        let nearest = distances.filter(|(distance, known)| *distance <= limit(known)).min();
        nearest.map(|(_, known)| known)
    }

    /// What the operator may have meant by `key`, as a remedy. The text never holds `key` itself, unless that is known.
    pub(crate) fn suggest(&self, key: &str) -> String {
        if let Some(known) = self.nearest(key) {
            return format!("did you mean `{known}`?");
        }
        let elsewhere: Vec<&str> =
            ALL.iter().filter(|table| table.key(key).is_some()).map(|table| table.name).collect();
        if elsewhere.is_empty() {
            let names: Vec<&str> = self.keys().map(|key| key.name).collect();
            format!("{} knows {}", self.name, listed(&names))
        } else {
            format!("`{key}` belongs into {}", elsewhere.join(" or "))
        }
    }
}

/// The edit distance of two keys; a key that is a word of the other (`secret` of `client_secret`) is near it.
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
    use super::super::{API, APP, LIMITS, TOP};

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
