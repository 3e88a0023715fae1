//! TLS: trusted certificates, the system's or those of `ca_file`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

/// Why there are no trusted certificates.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// `ca_file` cannot be read.
    #[error(
        "`ca_file` cannot be read: {reason}; make it readable to the daemon's user, or leave it out to trust the system's roots"
    )]
    Unreadable {
        /// The system's error. The file is not named, because a path that cannot be read may be a secret in the wrong key.
        reason: std::io::Error,
    },
    /// `ca_file` holds nothing that can be trusted.
    #[error("ca_file {}: {flaw}; {remedy}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        flaw: &'static str,
        /// What would be right.
        remedy: &'static str,
    },
    /// The system has no roots.
    #[error("the system has no CA certificates: {reason}; install the package ca-certificates, or set `ca_file`")]
    NoSystemRoots {
        /// The verifier's error.
        reason: rustls::Error,
    },
}

/// A TLS configuration without ALPN. Reading the certificates is slow, and can fail.
///
/// # Errors
/// See [`TrustError`].
pub(in crate::api) fn config(ca_file: Option<&Path>, provider: CryptoProvider) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(provider);
    match ca_file {
        Some(path) => Ok(builder(Arc::clone(&provider)).with_root_certificates(roots(path)?).with_no_client_auth()),
        None => {
            let verifier =
                Verifier::new(Arc::clone(&provider)).map_err(|reason| TrustError::NoSystemRoots { reason })?;
            let trusting = builder(provider).dangerous().with_custom_certificate_verifier(Arc::new(verifier));
            Ok(trusting.with_no_client_auth())
        }
    }
}

/// A configuration that trusts no certificate: for endpoints that are reached without TLS.
pub(in crate::api) fn unused() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    builder(provider).with_root_certificates(RootCertStore::empty()).with_no_client_auth()
}

fn builder(provider: Arc<CryptoProvider>) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    // TLS 1.2 and 1.3.
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.expect("ring has cipher suites for TLS 1.2 and 1.3")
}

fn roots(path: &Path) -> Result<RootCertStore, TrustError> {
    let unusable = |flaw, remedy| TrustError::Unusable { path: path.to_owned(), flaw, remedy };
    let bytes = std::fs::read(path).map_err(|reason| TrustError::Unreadable { reason })?;
    // An ASN.1 SEQUENCE: a certificate, but in DER.
    if bytes.first() == Some(&0x30) {
        return Err(unusable("is in DER, not PEM", "convert it: openssl x509 -inform der -in FILE -out FILE.pem"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|_| {
            unusable(
                "holds a PEM block that is broken",
                "write the file anew; each block is base64 between BEGIN and END lines",
            )
        })?;
        roots.add(certificate).map_err(|_| {
            unusable("holds something that is not a certificate", "write the file anew, with CA certificates alone")
        })?;
    }
    if roots.is_empty() {
        return Err(unusable(
            "holds no certificate",
            "it needs at least one block that begins with -----BEGIN CERTIFICATE-----",
        ));
    }
    Ok(roots)
}
