//! TLS with a throw-away certificate authority, whose key is never written anywhere.

use std::io;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::TlsAcceptor;

use crate::domain::Fingerprint;

/// The protocols of the server. Over TLS they are negotiated by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/2 and HTTP/1.1.
    Both,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/1.1 alone, and what clients offer by ALPN is ignored, as some gateways do.
    Http1WithoutAlpn,
    /// HTTP/2 alone.
    Http2,
}

/// How connections are secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `http://`
    Plain,
    /// `https://`, with a certificate for `localhost`, `127.0.0.1` and `::1`.
    Tls,
    /// `https://`, with a certificate that expired in 2021.
    TlsExpired,
    /// `https://`, with a certificate for another host.
    TlsWrongHost,
}

/// Signs the certificates of one or more sandboxes.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Makes a new one.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new() -> io::Result<Self> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::default();
        // A unique name: of two authorities with one name, a client that trusts the other sees only a bad signature.
        let name = format!("corptokend sandbox {}", Fingerprint::of(key.public_key_raw()));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        CertifiedIssuer::self_signed(params, key).map(Self).map_err(io::Error::other)
    }

    /// The authority's certificate in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A TLS server with a fresh certificate; `None` where there is no TLS.
    pub(super) fn acceptor(&self, transport: Transport, protocols: Protocols) -> io::Result<Option<TlsAcceptor>> {
        let hosts: &[&str] = match transport {
            Transport::Plain => return Ok(None),
            Transport::Tls | Transport::TlsExpired => &["localhost", "127.0.0.1", "::1"],
            Transport::TlsWrongHost => &["elsewhere.example"],
        };
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).map_err(io::Error::other)?;
        if transport == Transport::TlsExpired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.0).map_err(io::Error::other)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .map_err(io::Error::other)?;
        config.alpn_protocols = match protocols {
            Protocols::Both => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Protocols::Http1 => vec![b"http/1.1".to_vec()],
            Protocols::Http1WithoutAlpn => Vec::new(),
            Protocols::Http2 => vec![b"h2".to_vec()],
        };
        Ok(Some(TlsAcceptor::from(Arc::new(config))))
    }
}
