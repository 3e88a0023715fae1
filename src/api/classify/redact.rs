//! What of an answer may be quoted. A broken or hostile endpoint can put the token or the secret into any field of a refusal, and
//! what is quoted gets into the log, into `status` and into the state.
//! `docs/decisions/0048-what-is-read-and-quoted-of-an-answer.md` gives the reasons.

use std::fmt::Write;

use crate::domain::{Failure, Fingerprint};

/// An id and a secret that share so many consecutive characters do not do so by chance.
const MIN_REPEATED: usize = 8;

/// The code, if it is a known one.
pub(super) fn code(text: &str) -> Option<Box<str>> {
    super::is_known(text).then(|| text.into())
}

/// Describes an unknown code without quoting it. The digest tells whether it is one that the reader has in mind
/// (`printf %s CODE | sha256sum`).
pub(super) fn unknown_code(text: &str) -> String {
    format!("a code that is not documented ({} bytes, SHA-256 {})", text.len(), Fingerprint::of(text.as_bytes()))
}

/// The request id, if it is a UUID (RFC 9562, section 4) that repeats no part of `hidden`.
pub(super) fn request_id(text: &str, hidden: &[&str]) -> Option<Box<str>> {
    let repeats = |hidden: &&str| repeats(text, hidden);
    (is_uuid(text) && !hidden.iter().any(repeats)).then(|| text.into())
}

/// Whether `text` holds a part of `hidden`: forwards or backwards, plain or in hexadecimal, in any case, with any separators.
pub(super) fn repeats(text: &str, hidden: &str) -> bool {
    let plain = |text: &str| text.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_lowercase()).collect();
    let forwards: Vec<u8> = plain(text);
    let backwards: Vec<u8> = forwards.iter().rev().copied().collect();
    let hexadecimal = hidden.bytes().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "{byte:02x}");
        all
    });
    [plain(hidden), hexadecimal.into_bytes()].iter().any(|hidden| {
        let shared = |part: &[u8]| hidden.windows(MIN_REPEATED).any(|of_hidden| of_hidden == part);
        forwards.windows(MIN_REPEATED).chain(backwards.windows(MIN_REPEATED)).any(shared)
    })
}

/// 8-4-4-4-12 hexadecimal digits.
fn is_uuid(text: &str) -> bool {
    let digits = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut parts = text.split('-');
    [8, 4, 4, 4, 12].into_iter().all(|length| parts.next().is_some_and(|part| digits(part, length)))
        && parts.next().is_none()
}

/// Removes from a failure what must not be shown. A failure that an older version saved may hold a code or an id that is not
/// quoted any more. A new one may hold an id that is the token of fingerprint `held`, with the dashes of a UUID.
pub fn redact_failure(failure: &mut Failure, held: Option<Fingerprint>) {
    failure.code = failure.code.take().filter(|code| super::is_known(code));
    failure.request_id = failure.request_id.take().filter(|id| is_uuid(id));
    held.into_iter().for_each(|held| failure.remove_token(held));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FailureKind;

    const UUID: &str = "5A4D7E2C-18c1-7C1B-9A55-0123456789ab";

    #[test]
    fn a_request_id_is_a_uuid_and_nothing_else() {
        assert_eq!(request_id(UUID, &["s3cr3t", "t0k3n", ""]).as_deref(), Some(UUID));
        let nil = "00000000-0000-0000-0000-000000000000";
        assert!(request_id(nil, &[]).is_some());
        for other in [
            "",
            "r-1",
            "5A4D7E2C18c17C1B9A550123456789ab",
            "5A4D7E2C-18c1-7C1B-9A55-0123456789a",
            "5A4D7E2C-18c1-7C1B-9A55-0123456789abc",
            "5A4D7E2C-18c1-7C1B-9A55-0123456789ag",
            "5A4D7E2C-18c1-7C1B-9A55-0123456789ab-",
            "5A4D7E2-C18c1-7C1B-9A55-0123456789ab",
            " 5A4D7E2C-18c1-7C1B-9A55-0123456789a",
            "5A4D7E2C-18c1-7C1B-9A55-012345678ü9",
        ] {
            assert_eq!(request_id(other, &[]), None, "{other:?}");
        }
    }

    #[test]
    fn a_uuid_that_repeats_a_part_of_what_is_hidden_is_not_quoted() {
        let bare = UUID.replace('-', "");
        let backwards: String = bare.chars().rev().collect();
        for hidden in [
            UUID.to_owned(),
            bare.to_uppercase(),
            backwards,
            format!("prefix.{}", &bare[..16].to_lowercase()),
            format!("{}-suffix", &bare[24..]),
        ] {
            assert_eq!(request_id(UUID, &[&hidden]), None, "{hidden}");
        }
        // In hexadecimal: 41 42 43 44.
        assert_eq!(request_id("41424344-0000-0000-0000-000000000000", &["xABCDx"]), None);
    }

    #[test]
    fn what_an_older_version_saved_or_a_token_with_dashes_is_redacted() {
        let token = "5a4d7e2c18c17c1b9a550123456789ab";
        let failure = |code: &str, id: &str| {
            let (code, request_id) = (Some(code.into()), Some(id.into()));
            Failure { code, request_id, ..Failure::new(FailureKind::Malformed, "no") }
        };
        let mut kept = failure("invalid.client", UUID);
        redact_failure(&mut kept, None);
        assert_eq!(kept, failure("invalid.client", UUID));
        redact_failure(&mut kept, Some(Fingerprint::of(b"another")));
        assert_eq!(kept, failure("invalid.client", UUID));
        redact_failure(&mut kept, Some(Fingerprint::of(token.as_bytes())));
        assert_eq!((kept.code.as_deref(), kept.request_id), (Some("invalid.client"), None));
        let mut old = failure("c2VjcmV0", token);
        redact_failure(&mut old, None);
        assert_eq!((old.code, old.request_id), (None, None));
    }
}
