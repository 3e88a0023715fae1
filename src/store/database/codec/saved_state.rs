//! How one memory lies in the database: who failed, and before when nobody, or somebody, is to be called. Under the key of
//! its subject (`app/corp_id`, `app!breaker`, `app!rate`, `!ban!ORIGIN`, `!pace!ORIGIN`; `!ban`, `!total` of earlier releases) lie big-endian numbers and texts, each text
//! after its length in 2 bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the format of this entry, 1 |
//! | 1 | which memory it is: `p`, `s`, `b`, `f` or `u` |
//! | n | what it holds, in the order of [`Writer::memory`] |
//! | 8 | a checksum as in [`token`] |
//!
//! There is no secret in it: a failure tells of an answer what is fit for the log.

use super::token;
use crate::domain::{Failing, Failure, FailureKind, Fingerprint, OriginId, SavedKey, SavedState, Wait, WallMs};

const FORMAT: u8 = 1;

/// The key under which what is remembered of a subject lies.
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

/// Whom a key is about: neither an app's name nor a corp_id can hold a `!`.
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

/// Whether such a memory can be about such a subject.
fn fits(subject: &SavedKey, memory: &SavedState) -> bool {
    matches!(
        (subject, memory),
        (SavedKey::Ban(_) | SavedKey::EveryBan, SavedState::Paused(_))
            | (SavedKey::Pace(_) | SavedKey::EveryPace | SavedKey::Rate(_), SavedState::Slowed { .. })
            | (SavedKey::Breaker(_), SavedState::Broken { .. })
            | (SavedKey::Tenant(_), SavedState::Failing(_) | SavedState::Unextended(_))
    )
}

/// Writes the entry of `key`.
pub(crate) fn encode(key: &str, memory: &SavedState) -> Vec<u8> {
    let mut writer = Writer(vec![FORMAT]);
    writer.memory(memory);
    let Writer(mut value) = writer;
    let checksum = token::checksum(key.as_bytes(), &value);
    value.extend_from_slice(&checksum);
    value
}

/// `None` when the entry is not whole, or of a format that is not known.
pub(crate) fn decode(key: &str, value: &[u8]) -> Option<(SavedKey, SavedState)> {
    let (body, sum) = value.split_last_chunk::<8>()?;
    if *sum != token::checksum(key.as_bytes(), body) {
        return None;
    }
    let mut reader = Reader(body);
    let known = reader.u8()? == FORMAT;
    let (subject, memory) = (subject(key)?, known.then(|| reader.memory())??);
    (reader.0.is_empty() && fits(&subject, &memory)).then_some((subject, memory))
}

struct Writer(Vec<u8>);

impl Writer {
    fn memory(&mut self, memory: &SavedState) {
        match memory {
            SavedState::Paused(wait) => {
                self.u8(b'p');
                self.wait(*wait);
            }
            SavedState::Slowed { share, hold } => {
                self.u8(b's');
                self.u16(*share);
                self.wait(*hold);
            }
            SavedState::Broken { kind, probes, probe } => {
                self.u8(b'b');
                self.text(kind.as_str());
                self.u16(*probes);
                self.wait(*probe);
            }
            SavedState::Failing(failing) => {
                self.u8(b'f');
                self.failing(failing);
            }
            SavedState::Unextended(fingerprint) => {
                self.u8(b'u');
                self.u64(fingerprint.0);
            }
        }
    }

    fn failing(&mut self, failing: &Failing) {
        let Failing { failure, since, at, failures, unknown, refused, next } = failing;
        self.text(failure.kind.as_str());
        self.option(failure.code.as_deref());
        self.option(failure.request_id.as_deref());
        self.text(&failure.detail);
        self.u64(since.0);
        self.u64(at.0);
        self.u16(*failures);
        self.u16(*unknown);
        self.u8((*refused).into());
        self.wait(*next);
    }

    fn u8(&mut self, number: u8) {
        self.0.push(number);
    }

    fn u16(&mut self, number: u16) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn wait(&mut self, wait: Wait) {
        self.u64(wait.told.0);
        self.u64(wait.until.0);
    }

    /// A text, or as much of it as its length can say.
    fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
        self.u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
        self.0.extend_from_slice(text.as_bytes());
    }

    fn option(&mut self, text: Option<&str>) {
        self.u8(text.is_some().into());
        if let Some(text) = text {
            self.text(text);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn memory(&mut self) -> Option<SavedState> {
        Some(match self.u8()? {
            b'p' => SavedState::Paused(self.wait()?),
            b's' => SavedState::Slowed { share: self.u16()?, hold: self.wait()? },
            b'b' => SavedState::Broken { kind: self.kind()?, probes: self.u16()?, probe: self.wait()? },
            b'f' => SavedState::Failing(self.failing()?),
            b'u' => SavedState::Unextended(Fingerprint(self.u64()?)),
            _ => return None,
        })
    }

    fn failing(&mut self) -> Option<Failing> {
        let failure = Failure {
            kind: self.kind()?,
            code: self.option()?,
            request_id: self.option()?,
            detail: self.text()?.into(),
            retry_after_s: None,
        };
        Some(Failing {
            failure,
            since: WallMs(self.u64()?),
            at: WallMs(self.u64()?),
            failures: self.u16()?,
            unknown: self.u16()?,
            refused: self.u8()? != 0,
            next: self.wait()?,
        })
    }

    fn kind(&mut self) -> Option<FailureKind> {
        FailureKind::named(self.text()?)
    }

    fn wait(&mut self) -> Option<Wait> {
        Some(Wait { told: WallMs(self.u64()?), until: WallMs(self.u64()?) })
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn option(&mut self) -> Option<Option<Box<str>>> {
        Some(match self.u8()? {
            0 => None,
            _ => Some(self.text()?.into()),
        })
    }
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
        for (subject, memory) in all() {
            let key = key(&subject);
            assert_eq!(decode(&key, &encode(&key, &memory)), Some((subject, memory)));
        }
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        for (subject, memory) in all() {
            let key = key(&subject);
            let whole = encode(&key, &memory);
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
    fn a_memory_never_passes_as_anothers() {
        for (subject, memory) in all() {
            let value = encode(&key(&subject), &memory);
            let others = all().into_iter().filter(|(other, _)| *other != subject);
            assert!(others.map(|(other, _)| key(&other)).all(|key| decode(&key, &value).is_none()));
        }
        // A whole entry that nobody would have written.
        let strange = SavedState::Paused(wait(1));
        assert_eq!(decode("crm/ding1", &encode("crm/ding1", &strange)), None);
    }
}
