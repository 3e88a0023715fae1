//! Numbers and texts as bytes: numbers big-endian, a text after its length in 2 bytes, an optional one after a flag.

/// Appends values.
pub(super) struct Encoder(pub(super) Vec<u8>);

impl Encoder {
    pub(super) fn u8(&mut self, number: u8) {
        self.0.push(number);
    }

    pub(super) fn u16(&mut self, number: u16) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub(super) fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    /// A text that is too long for its length is cut.
    pub(super) fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
        self.u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(super) fn option(&mut self, text: Option<&str>) {
        self.u8(text.is_some().into());
        if let Some(text) = text {
            self.text(text);
        }
    }
}

/// Takes values from the front; each method returns `None` if too few bytes are left.
pub(super) struct Decoder<'a>(pub(super) &'a [u8]);

impl<'a> Decoder<'a> {
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    pub(super) fn option(&mut self) -> Option<Option<Box<str>>> {
        Some(match self.u8()? {
            0 => None,
            _ => Some(self.text()?.into()),
        })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }
}
