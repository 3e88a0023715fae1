//! Limits how much a server may send. A server that sends informational answers, pings, settings or unknown frames without end
//! occupies a core for as long as a call may last, and calls to it can follow each other forever.
//!
//! Neither reqwest nor hyper counts what arrives besides answers, and their connections cannot be wrapped. But all of it arrives as
//! TLS records: each record's decryption spends from a budget that calls fill. Once the budget is spent, the next record is an
//! error, which ends the connection. Endpoints without TLS are on this machine ([`Endpoint`](crate::domain::Endpoint)), and are
//! not metered.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter,
    Tls12AeadAlgorithm, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use rustls::{ConnectionTrafficSecrets, Error, SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite};

/// The error's text when the budget is spent.
pub(in crate::api) const EXCEEDED: &str = "the server sends more than the calls to it can have asked for";

/// What each call in flight allows the server to send, in bytes: twice the longest answer (one more may be sent ahead unread), its
/// headers, and the certificates of a new connection.
const PER_CALL: i64 = 192 * 1024;
/// What it may send between calls: pings, settings, the ends of connections.
const BETWEEN_CALLS: i64 = 256 * 1024;
/// The size of a record's header, in bytes.
const RECORD_HEADER: usize = 5;

/// How much the server may still send to one client.
#[derive(Debug)]
pub(in crate::api) struct Budget {
    left: AtomicI64,
    calls: AtomicI64,
}

impl Budget {
    fn new() -> Self {
        Self { left: AtomicI64::new(BETWEEN_CALLS), calls: AtomicI64::new(0) }
    }

    /// A call begins. It ends when the returned guard is dropped.
    pub(in crate::api) fn call(&self) -> CallGuard<'_> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.left.fetch_add(PER_CALL, Ordering::Relaxed);
        CallGuard(self)
    }

    /// Spends `bytes`. `false`: the budget does not allow them.
    fn spend(&self, bytes: usize) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.left.fetch_sub(bytes, Ordering::Relaxed) >= bytes
    }
}

/// Held while a call is in flight: it allows the server to send an answer.
pub(in crate::api) struct CallGuard<'a>(&'a Budget);

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        let Self(Budget { left, calls }) = self;
        let others = calls.fetch_sub(1, Ordering::Relaxed) - 1;
        // What a call left over is not saved up for a flood. What was overspent is forgiven, because the connection has ended.
        let most = BETWEEN_CALLS + others * PER_CALL;
        let _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.clamp(0, most)));
    }
}

/// The budget that a set of suites spends from.
type Payer = Arc<Mutex<Arc<Budget>>>;

/// Cipher suites that spend from one client's budget.
pub(in crate::api) struct Metered {
    suites: Suites,
    pub(in crate::api) budget: Arc<Budget>,
}

/// Leaked suites, because rustls wants them to be `'static`. A client that is dropped leaves its own to the next one, so there are
/// never more than there were clients at once.
struct Suites {
    suites: Vec<SupportedCipherSuite>,
    payer: Payer,
}

static SPARE: Mutex<Vec<Suites>> = Mutex::new(Vec::new());

impl Metered {
    pub(in crate::api) fn new() -> Self {
        let budget = Arc::new(Budget::new());
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let suites = spare.unwrap_or_else(|| Suites::new(&budget));
        *suites.payer.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&budget);
        Self { suites, budget }
    }

    /// ring's provider with these suites.
    pub(in crate::api) fn provider(&self) -> CryptoProvider {
        let cipher_suites = self.suites.suites.clone();
        CryptoProvider { cipher_suites, ..rustls::crypto::ring::default_provider() }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        let suites = Suites { suites: std::mem::take(&mut self.suites.suites), payer: Arc::clone(&self.suites.payer) };
        SPARE.lock().unwrap_or_else(PoisonError::into_inner).push(suites);
    }
}

impl Suites {
    fn new(budget: &Arc<Budget>) -> Self {
        let payer: Payer = Arc::new(Mutex::new(Arc::clone(budget)));
        let suites = rustls::crypto::ring::default_provider().cipher_suites;
        Self { suites: suites.into_iter().map(|suite| metered(suite, &payer)).collect(), payer }
    }
}

fn metered(suite: SupportedCipherSuite, payer: &Payer) -> SupportedCipherSuite {
    let copy = |common: &CipherSuiteCommon| CipherSuiteCommon { ..*common };
    match suite {
        SupportedCipherSuite::Tls12(suite) => SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
            common: copy(&suite.common),
            aead_alg: Box::leak(Box::new(Metering { of: suite.aead_alg, payer: Arc::clone(payer) })),
            ..*suite
        }))),
        SupportedCipherSuite::Tls13(suite) => SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
            common: copy(&suite.common),
            aead_alg: Box::leak(Box::new(Metering { of: suite.aead_alg, payer: Arc::clone(payer) })),
            ..*suite
        }))),
    }
}

/// An algorithm whose decryption spends from a budget.
struct Metering<A: ?Sized + 'static> {
    of: &'static A,
    payer: Payer,
}

impl<A: ?Sized> Metering<A> {
    fn metered(&self, inner: Box<dyn MessageDecrypter>) -> Box<dyn MessageDecrypter> {
        let budget = Arc::clone(&self.payer.lock().unwrap_or_else(PoisonError::into_inner));
        Box::new(MeteredDecrypter { inner, budget })
    }
}

struct MeteredDecrypter {
    inner: Box<dyn MessageDecrypter>,
    budget: Arc<Budget>,
}

impl MessageDecrypter for MeteredDecrypter {
    fn decrypt<'a>(&mut self, record: InboundOpaqueMessage<'a>, seq: u64) -> Result<InboundPlainMessage<'a>, Error> {
        if self.budget.spend(record.payload.len() + RECORD_HEADER) {
            self.inner.decrypt(record, seq)
        } else {
            Err(Error::General(EXCEEDED.to_owned()))
        }
    }
}

impl Tls13AeadAlgorithm for Metering<dyn Tls13AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        self.of.encrypter(key, iv)
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.metered(self.of.decrypter(key, iv))
    }

    fn key_len(&self) -> usize {
        self.of.key_len()
    }

    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.of.extract_keys(key, iv)
    }

    fn fips(&self) -> bool {
        self.of.fips()
    }
}

impl Tls12AeadAlgorithm for Metering<dyn Tls12AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        self.of.encrypter(key, iv, extra)
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        self.metered(self.of.decrypter(key, iv))
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        self.of.key_block_shape()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.of.extract_keys(key, iv, explicit)
    }

    fn fips(&self) -> bool {
        self.of.fips()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_fill_the_budget_and_what_they_leave_over_is_not_saved() {
        let budget = Budget::new();
        assert!(budget.spend(256 * 1024) && !budget.spend(1));
        for _ in 0..100 {
            let calls = [budget.call(), budget.call()];
            assert!(budget.spend(192 * 1024));
            drop(calls);
        }
        assert!(!budget.spend(256 * 1024 + 1));
        drop(budget.call());
        assert!(budget.spend(128 * 1024), "a flood of the past is forgiven");
    }
}
