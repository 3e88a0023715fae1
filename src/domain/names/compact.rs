//! Short texts, held in place.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// So many bytes fit.
const MOST: usize = 22;

/// A text that does not change. One of up to [`MOST`] bytes needs no memory of its own, and is copied without touching what
/// others hold: where there are a million, that is a block of memory and a cache line less for each. A longer one is shared.
#[derive(Clone)]
pub(super) enum ShortText {
    InPlace { len: u8, bytes: [u8; MOST] },
    Shared(Arc<str>),
}

impl ShortText {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::InPlace { len, bytes } => &bytes[..usize::from(*len)],
            Self::Shared(text) => text.as_bytes(),
        }
    }
}

impl From<&str> for ShortText {
    fn from(text: &str) -> Self {
        let mut bytes = [0; MOST];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text.as_bytes());
                Self::InPlace { len, bytes }
            }
            _ => Self::Shared(text.into()),
        }
    }
}

impl Deref for ShortText {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Self::InPlace { .. } => std::str::from_utf8(self.as_bytes()).expect("it was a text when it came"),
            Self::Shared(text) => text,
        }
    }
}

impl PartialEq for ShortText {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for ShortText {}

impl PartialOrd for ShortText {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ShortText {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

/// As a `str` is hashed: maps are searched by `&str`.
impl Hash for ShortText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn texts_of_any_length_are_what_they_were_and_in_the_order_of_texts() {
        let texts: Vec<String> = ["", "ä", "b", "ba"].into_iter().map(str::to_owned).collect();
        let long = (20..25).map(|n| "x".repeat(n));
        let texts: Vec<String> = texts.into_iter().chain(long).collect();
        let hasher = RandomState::new();
        for (a, b) in texts.iter().flat_map(|a| texts.iter().map(move |b| (a, b))) {
            let (short, other) = (ShortText::from(a.as_str()), ShortText::from(b.as_str()));
            assert_eq!(&*short, a);
            assert_eq!((short == other, short.cmp(&other)), (a == b, a.cmp(b)));
            assert_eq!(hasher.hash_one(&short), hasher.hash_one(a.as_str()));
        }
    }

    #[test]
    fn a_usual_corp_id_is_held_in_place() {
        assert!(matches!(ShortText::from("ding9f50b15bccd16741"), ShortText::InPlace { .. }));
        assert_eq!(size_of::<ShortText>(), 24);
    }
}
