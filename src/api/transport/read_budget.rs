//! How much a server may send. A server that never ends, with informational answers, pings, settings or frames that nobody
//! knows, takes a core for as long as a call may last, and calls to it can follow each other for ever.
//!
//! Neither reqwest nor hyper count what comes in beside answers, and their connections cannot be wrapped. All of it comes as TLS
//! records, though, and TLS is ours to configure: each record's decryption spends from a budget that calls fill. Once it is
//! spent, the next record is an error, which ends the connection. Endpoints without TLS are on this machine
//! ([`Endpoint`](crate::domain::Endpoint)), and are not metered.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter,
    Tls12AeadAlgorithm, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use rustls::{ConnectionTrafficSecrets, Error, SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite};

/// What is said when the budget is spent.
pub(in crate::api) const EXCEEDED: &str = "the server sends more than the calls to it can have asked for";

/// What each call under way allows the server to send, in bytes: twice the longest answer (as much may be on its way unread),
/// its headers, and the certificates of a new connection.
const A_CALL: i64 = 192 * 1024;
/// What it may send besides, before the next call: pings, settings, the ends of connections.
const BESIDES: i64 = 256 * 1024;
/// What a record's header takes.
const RECORD_HEADER: usize = 5;

/// What the server may still send to one client.
#[derive(Debug)]
pub(in crate::api) struct Budget {
    left: AtomicI64,
    calls: AtomicI64,
}

impl Budget {
    fn new() -> Self {
        Self { left: AtomicI64::new(BESIDES), calls: AtomicI64::new(0) }
    }

    /// A call begins; it ends when what is returned is dropped.
    pub(in crate::api) fn call(&self) -> CallUnderWay<'_> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.left.fetch_add(A_CALL, Ordering::Relaxed);
        CallUnderWay(self)
    }

    /// Whether the server may send so much.
    fn spend(&self, bytes: usize) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.left.fetch_sub(bytes, Ordering::Relaxed) >= bytes
    }
}

/// Allows the server to send its answer.
pub(in crate::api) struct CallUnderWay<'a>(&'a Budget);

impl Drop for CallUnderWay<'_> {
    fn drop(&mut self) {
        let Self(Budget { left, calls }) = self;
        let others = calls.fetch_sub(1, Ordering::Relaxed) - 1;
        // What was not used up is not saved for a flood; what was overspent is forgiven, as the connection has ended.
        let most = BESIDES + others * A_CALL;
        let _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.clamp(0, most)));
    }
}

/// Whose budget a set of suites spends.
type Payer = Arc<Mutex<Arc<Budget>>>;

/// Cipher suites that spend from a budget of their own.
pub(in crate::api) struct Metered {
    suites: Suites,
    pub(in crate::api) budget: Arc<Budget>,
}

/// rustls wants its suites to live for ever, so a client that goes leaves its own to the next one: there are never more than
/// there were clients at once.
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

    /// ring's, with these suites.
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

/// An algorithm that meters what it decrypts.
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
    fn calls_fill_the_budget_and_what_they_leave_is_not_saved() {
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
