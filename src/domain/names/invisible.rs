//! Characters that are invisible, or that change how the text around them looks. With them two different names could look the same,
//! and a line of a report could be read differently from how it was written.

/// The first character of `text` that is a control character, is invisible, or changes the direction of the text around it.
pub fn first_invisible(text: &str) -> Option<char> {
    text.chars().find(|c| is_invisible(*c))
}

/// Whether `c` is a control character (Cc), a format character (Cf: marks of direction, zero-width joiners, soft hyphens,
/// tags), a line or paragraph separator (Zl, Zp), or one that is meant to be drawn as nothing
/// (Unicode 17.0, `DerivedGeneralCategory.txt`, and `Default_Ignorable_Code_Point` of `DerivedCoreProperties.txt`).
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || RANGES
            .binary_search_by(|(first, last)| {
                if *last < c {
                    std::cmp::Ordering::Less
                } else if *first > c {
                    std::cmp::Ordering::Greater
                } else {
                    std::cmp::Ordering::Equal
                }
            })
            .is_ok()
}

/// The first and the last character of each range, in order.
const RANGES: [(char, char); 25] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_found_and_what_is_seen_is_not() {
        assert!(RANGES.is_sorted_by(|(_, last), (next, _)| last < next));
        assert!(RANGES.iter().all(|(first, last)| is_invisible(*first) && is_invisible(*last)));
        for hidden in ["\n", "\u{7f}", "\u{85}", "\u{200b}", "\u{202e}", "\u{2066}", "\u{2028}", "\u{e0041}"] {
            assert_eq!(first_invisible(&format!("acme{hidden}x")), hidden.chars().next(), "{hidden:?}");
        }
        for seen in ["acme", "阿里 巴巴", "São João", "Ελλάς", "עברית", "עَرَب", "☎", "e\u{301}"]
        {
            assert_eq!(first_invisible(seen), None, "{seen}");
        }
    }
}
