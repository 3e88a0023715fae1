//! Short texts, stored inline.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// The longest text that is stored inline, in bytes.
const INLINE_BYTES: usize = 22;

/// An immutable text. A text of up to [`INLINE_BYTES`] bytes needs no allocation, and cloning it touches no shared counter; a longer one
/// is shared. With a million tenants this spares an allocation and a cache miss for each.
#[derive(Clone)]
pub(super) enum CompactText {
    Inline { len: u8, bytes: [u8; INLINE_BYTES] },
    Shared(Arc<str>),
}

impl CompactText {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Shared(text) => text.as_bytes(),
        }
    }
}

impl From<&str> for CompactText {
    fn from(text: &str) -> Self {
        let mut bytes = [0; INLINE_BYTES];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text.as_bytes());
                Self::Inline { len, bytes }
            }
            _ => Self::Shared(text.into()),
        }
    }
}

impl Deref for CompactText {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Self::Inline { .. } => std::str::from_utf8(self.as_bytes()).expect("it was made from a str"),
            Self::Shared(text) => text,
        }
    }
}

impl PartialEq for CompactText {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for CompactText {}

impl PartialOrd for CompactText {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for CompactText {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

/// The hash of the `str`, because maps are searched by `&str`.
impl Hash for CompactText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn texts_of_any_length_keep_their_value_order_and_hash() {
        let texts: Vec<String> = ["", "ä", "b", "ba"].into_iter().map(str::to_owned).collect();
        let long = (20..25).map(|n| "x".repeat(n));
        let texts: Vec<String> = texts.into_iter().chain(long).collect();
        let hasher = RandomState::new();
        for (a, b) in texts.iter().flat_map(|a| texts.iter().map(move |b| (a, b))) {
            let (text, other) = (CompactText::from(a.as_str()), CompactText::from(b.as_str()));
            assert_eq!(&*text, a);
            assert_eq!((text == other, text.cmp(&other)), (a == b, a.cmp(b)));
            assert_eq!(hasher.hash_one(&text), hasher.hash_one(a.as_str()));
        }
    }

    #[test]
    fn a_usual_corp_id_is_stored_inline() {
        assert!(matches!(CompactText::from("ding9f50b15bccd16741"), CompactText::Inline { .. }));
        assert_eq!(size_of::<CompactText>(), 24);
    }
}
