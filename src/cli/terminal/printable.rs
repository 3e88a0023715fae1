//! Makes text printable. Names, errors and other texts of others must not steer a terminal, nor change the direction of text.

use std::io::{self, Write};

use crate::domain::is_invisible;

/// The text on one line, with U+FFFD for each invisible character.
pub(in crate::cli) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_invisible(c) { '\u{fffd}' } else { c }).collect()
}

/// The same for a report of several lines.
pub(in crate::cli) fn printable_lines(text: &str) -> String {
    text.chars().map(|c| if c != '\n' && is_invisible(c) { '\u{fffd}' } else { c }).collect()
}

/// Passes JSON on with invisible characters escaped (RFC 8259, section 7). The JSON keeps its value: such characters occur only in
/// strings, and a string may hold any character as `\uXXXX`. Line feeds, which separate rows, stay.
///
/// Bytes that are no UTF-8 become U+FFFD.
pub(in crate::cli) struct SafeJson<W> {
    out: W,
    /// The beginning of a character whose rest has not been written yet.
    part: Vec<u8>,
}

impl<W: Write> SafeJson<W> {
    pub(in crate::cli) fn new(out: W) -> Self {
        Self { out, part: Vec::new() }
    }

    fn pass(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match std::str::from_utf8(bytes) {
                Ok(text) => return self.escape(text),
                Err(error) => {
                    let (valid, rest) = bytes.split_at(error.valid_up_to());
                    self.escape(std::str::from_utf8(valid).unwrap_or_default())?;
                    let Some(bad) = error.error_len() else {
                        self.part = rest.to_vec();
                        return Ok(());
                    };
                    self.out.write_all("\u{fffd}".as_bytes())?;
                    bytes = &rest[bad..];
                }
            }
        }
        Ok(())
    }

    fn escape(&mut self, text: &str) -> io::Result<()> {
        let mut from = 0;
        for (at, c) in text.char_indices().filter(|(_, c)| *c != '\n' && is_invisible(*c)) {
            self.out.write_all(&text.as_bytes()[from..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(self.out, "\\u{unit:04x}")?;
            }
            from = at + c.len_utf8();
        }
        self.out.write_all(&text.as_bytes()[from..])
    }
}

impl<W: Write> Write for SafeJson<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Most text is plain ASCII.
        if self.part.is_empty() && bytes.iter().all(|byte| (b' '..=b'~').contains(byte) || *byte == b'\n') {
            self.out.write_all(bytes)?;
        } else {
            let mut whole = std::mem::take(&mut self.part);
            whole.extend_from_slice(bytes);
            self.pass(&whole)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe(pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut json = SafeJson::new(&mut out);
        pieces.iter().for_each(|piece| json.write_all(piece).unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_keeps_its_value_and_shows_no_invisible_character() {
        let nasty = "a\u{1b}[2Jb\u{9b}c\u{202e}d\u{2028}e\u{2066}f\u{e0041}g\u{7f}h 钉钉 \"\\";
        let text = serde_json::to_string(&serde_json::json!({ "name": nasty })).unwrap();
        // In pieces of any length.
        for piece in 1..8 {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(piece).collect();
            let shown = safe(&pieces);
            assert!(!shown.contains(is_invisible), "{shown:?}");
            assert!(shown.contains("钉钉") && shown.contains("\\u202e") && shown.contains("\\udb40\\udc41"), "{shown}");
            let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(value["name"], nasty);
        }
    }

    #[test]
    fn rows_keep_their_lines_and_invalid_utf8_is_marked() {
        assert_eq!(safe(&[b"{\n", b"}\n"]), "{\n}\n");
        assert_eq!(safe(&[b"\"\xff\x1b[31m\""]), "\"\u{fffd}\\u001b[31m\"");
    }

    #[test]
    fn texts_of_others_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n\u{202e}c"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c");
        assert_eq!(printable_lines("a\x1b\nb"), "a\u{fffd}\nb");
    }
}
