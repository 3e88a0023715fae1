//! The layout of a saved state: who failed, and when calls are allowed again. The key is its subject:
//! `app/corp_id`, `app!breaker`, `app!rate`, `!ban!ORIGIN` or `!pace!ORIGIN`; earlier releases wrote `!ban` and `!total`.
//! The value, in the encoding of [`bytes`](super::bytes):
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the format of this value, 1 |
//! | 1 | which state it is: `p`, `s`, `b`, `f` or `u` |
//! | n | its fields, in the order of [`write`] |
//! | 8 | a [`checksum`] |
//!
//! It holds no secret: a failure has only what the log may show of an answer.

use super::bytes::{Decoder, Encoder};
use super::checksum::{self, checksum};
use crate::domain::{Failing, Failure, FailureKind, Fingerprint, OriginId, SavedKey, SavedState, Wait, WallMs};

const FORMAT: u8 = 1;

/// The key of a subject.
pub(crate) fn key(subject: &SavedKey) -> String {
    match subject {
        SavedKey::Ban(origin) => format!("!ban!{:016x}", origin.0),
        SavedKey::Pace(origin) => format!("!pace!{:016x}", origin.0),
        SavedKey::EveryBan => "!ban".into(),
        SavedKey::EveryPace => "!total".into(),
        SavedKey::Breaker(app) => format!("{app}!breaker"),
        SavedKey::Rate(app) => format!("{app}!rate"),
        SavedKey::Tenant(id) => id.to_string(),
    }
}

/// The subject of a key. Neither an app's name nor a corp_id can hold a `!`.
fn subject(key: &str) -> Option<SavedKey> {
    match key.split_once('!') {
        Some(("", "ban")) => Some(SavedKey::EveryBan),
        Some(("", "total")) => Some(SavedKey::EveryPace),
        Some(("", of_origin)) => match of_origin.split_once('!')? {
            ("ban", origin) => Some(SavedKey::Ban(origin_id(origin)?)),
            ("pace", origin) => Some(SavedKey::Pace(origin_id(origin)?)),
            _ => None,
        },
        Some((app, "breaker")) => Some(SavedKey::Breaker(app.parse().ok()?)),
        Some((app, "rate")) => Some(SavedKey::Rate(app.parse().ok()?)),
        Some(_) => None,
        None => Some(SavedKey::Tenant(key.parse().ok()?)),
    }
}

fn origin_id(hex: &str) -> Option<OriginId> {
    u64::from_str_radix(hex, 16).ok().map(OriginId)
}

/// Whether this subject can have such a state.
fn fits(subject: &SavedKey, state: &SavedState) -> bool {
    matches!(
        (subject, state),
        (SavedKey::Ban(_) | SavedKey::EveryBan, SavedState::Paused(_))
            | (SavedKey::Pace(_) | SavedKey::EveryPace | SavedKey::Rate(_), SavedState::Slowed { .. })
            | (SavedKey::Breaker(_), SavedState::Broken { .. })
            | (SavedKey::Tenant(_), SavedState::Failing(_) | SavedState::Unextended(_))
    )
}

/// Encodes the value of `key`.
pub(crate) fn encode(key: &str, state: &SavedState) -> Vec<u8> {
    let mut out = Encoder(vec![FORMAT]);
    write(&mut out, state);
    let Encoder(mut value) = out;
    let checksum = checksum(key.as_bytes(), &value);
    value.extend_from_slice(&checksum);
    value
}

/// `None` if the value is not whole, or of an unknown format.
pub(crate) fn decode(key: &str, value: &[u8]) -> Option<(SavedKey, SavedState)> {
    let mut from = Decoder(checksum::verified(key.as_bytes(), value)?);
    let is_known = from.u8()? == FORMAT;
    let (subject, state) = (subject(key)?, is_known.then(|| read(&mut from))??);
    (from.0.is_empty() && fits(&subject, &state)).then_some((subject, state))
}

fn write(out: &mut Encoder, state: &SavedState) {
    match state {
        SavedState::Paused(wait) => {
            out.u8(b'p');
            write_wait(out, *wait);
        }
        SavedState::Slowed { share, hold } => {
            out.u8(b's');
            out.u16(*share);
            write_wait(out, *hold);
        }
        SavedState::Broken { kind, probes, probe } => {
            out.u8(b'b');
            out.text(kind.as_str());
            out.u16(*probes);
            write_wait(out, *probe);
        }
        SavedState::Failing(failing) => {
            out.u8(b'f');
            write_failing(out, failing);
        }
        SavedState::Unextended(fingerprint) => {
            out.u8(b'u');
            out.u64(fingerprint.0);
        }
    }
}

fn write_failing(out: &mut Encoder, failing: &Failing) {
    let Failing { failure, since, at, failures, unknown, refused, next } = failing;
    out.text(failure.kind.as_str());
    out.option(failure.code.as_deref());
    out.option(failure.request_id.as_deref());
    out.text(&failure.detail);
    out.u64(since.0);
    out.u64(at.0);
    out.u16(*failures);
    out.u16(*unknown);
    out.u8((*refused).into());
    write_wait(out, *next);
}

fn write_wait(out: &mut Encoder, wait: Wait) {
    out.u64(wait.told.0);
    out.u64(wait.until.0);
}

fn read(from: &mut Decoder<'_>) -> Option<SavedState> {
    Some(match from.u8()? {
        b'p' => SavedState::Paused(read_wait(from)?),
        b's' => SavedState::Slowed { share: from.u16()?, hold: read_wait(from)? },
        b'b' => SavedState::Broken { kind: read_kind(from)?, probes: from.u16()?, probe: read_wait(from)? },
        b'f' => SavedState::Failing(read_failing(from)?),
        b'u' => SavedState::Unextended(Fingerprint(from.u64()?)),
        _ => return None,
    })
}

fn read_failing(from: &mut Decoder<'_>) -> Option<Failing> {
    let failure = Failure {
        kind: read_kind(from)?,
        code: from.option()?,
        request_id: from.option()?,
        detail: from.text()?.into(),
        retry_after_s: None,
    };
    Some(Failing {
        failure,
        since: WallMs(from.u64()?),
        at: WallMs(from.u64()?),
        failures: from.u16()?,
        unknown: from.u16()?,
        refused: from.u8()? != 0,
        next: read_wait(from)?,
    })
}

fn read_kind(from: &mut Decoder<'_>) -> Option<FailureKind> {
    FailureKind::named(from.text()?)
}

fn read_wait(from: &mut Decoder<'_>) -> Option<Wait> {
    Some(Wait { told: WallMs(from.u64()?), until: WallMs(from.u64()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(until: u64) -> Wait {
        Wait { told: WallMs(1_000), until: WallMs(until) }
    }

    fn all() -> Vec<(SavedKey, SavedState)> {
        let app = || "crm".parse().unwrap();
        let failure = Failure {
            code: Some("unauthorized.client".into()),
            request_id: Some("ABC-1".into()),
            ..Failure::new(FailureKind::Unauthorized, "the app is not authorised – so it says")
        };
        let failing = Failing {
            failure,
            since: WallMs(7),
            at: WallMs(8),
            failures: 9,
            unknown: 4,
            refused: true,
            next: wait(901_000),
        };
        vec![
            (SavedKey::Ban(OriginId(7)), SavedState::Paused(wait(301_000))),
            (SavedKey::Ban(OriginId(u64::MAX)), SavedState::Paused(wait(301_000))),
            (SavedKey::Pace(OriginId(7)), SavedState::Slowed { share: 512, hold: wait(2_000) }),
            (SavedKey::EveryBan, SavedState::Paused(wait(301_000))),
            (SavedKey::EveryPace, SavedState::Slowed { share: 512, hold: wait(2_000) }),
            (SavedKey::Rate(app()), SavedState::Slowed { share: 16, hold: wait(3_000) }),
            (
                SavedKey::Breaker(app()),
                SavedState::Broken { kind: FailureKind::WrongCredentials, probes: 3, probe: wait(31_000) },
            ),
            (SavedKey::Tenant("crm/ding1".parse().unwrap()), SavedState::Failing(failing)),
            (
                SavedKey::Tenant("crm/ding2".parse().unwrap()),
                SavedState::Unextended(Fingerprint(0x1234_5678_9abc_def0)),
            ),
        ]
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (subject, state) in all() {
            let key = key(&subject);
            assert_eq!(decode(&key, &encode(&key, &state)), Some((subject, state)));
        }
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        for (subject, state) in all() {
            let key = key(&subject);
            let whole = encode(&key, &state);
            for at in 0..whole.len() {
                for bit in 0..8 {
                    let mut changed = whole.clone();
                    changed[at] ^= 1 << bit;
                    assert_eq!(decode(&key, &changed), None, "{key}: bit {bit} of byte {at}");
                }
                assert_eq!(decode(&key, &whole[..at]), None, "{key}: {at} bytes");
            }
        }
    }

    #[test]
    fn a_saved_state_never_passes_as_anothers() {
        for (subject, state) in all() {
            let value = encode(&key(&subject), &state);
            let others = all().into_iter().filter(|(other, _)| *other != subject);
            assert!(others.map(|(other, _)| key(&other)).all(|key| decode(&key, &value).is_none()));
        }
        // A whole value that nobody would have written.
        let strange = SavedState::Paused(wait(1));
        assert_eq!(decode("crm/ding1", &encode("crm/ding1", &strange)), None);
    }
}
