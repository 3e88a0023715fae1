//! Servers that never end what they send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corptokend::api::TokenClient;
use corptokend::domain::{Connection, FailureKind};
use corptokend::sandbox::Options;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::fixture::{Fixture, ask, ca_file, connection};

/// A server that answers every request with the same bytes, for ever.
struct Flood {
    address: SocketAddr,
    /// What it got rid of, the kernel's buffers included.
    sent: Arc<AtomicU64>,
    ca_pem: String,
}

impl Flood {
    async fn of(protocol: &'static [u8], begin: Vec<u8>, again: Vec<u8>) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
                .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, sent) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let (counter, acceptor) = (Arc::clone(&sent), TlsAcceptor::from(Arc::new(config)));
        let batch = again.repeat(16 * 1024 / again.len());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let (mut requests, mut answers) = tokio::io::split(stream);
                let (begin, batch, counter) = (begin.clone(), batch.clone(), Arc::clone(&counter));
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while requests.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                });
                tokio::spawn(async move {
                    answers.write_all(&begin).await?;
                    loop {
                        answers.write_all(&batch).await?;
                        counter.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    }
                    #[expect(unreachable_code, reason = "it tells the type")]
                    std::io::Result::Ok(())
                });
            }
        });
        Self { address, sent, ca_pem: certificate.pem() }
    }
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn a_server_that_never_ends_is_hung_up_on_and_other_endpoints_are_not_concerned() {
    let settings = frame(4, 0, 0, &[]);
    let fixture = Fixture::new(Options::default()).await;
    for (name, protocol, begin, again) in [
        (
            "informational answers",
            b"http/1.1".as_slice(),
            vec![],
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".to_vec(),
        ),
        ("pings", b"h2", settings.clone(), frame(6, 0, 0, &[7; 8])),
        ("settings", b"h2", settings.clone(), settings.clone()),
        ("unknown frames", b"h2", settings.clone(), frame(0xfa, 0, 0, &[7; 100])),
        ("window updates", b"h2", settings.clone(), frame(8, 0, 0, &[0, 0, 0, 1])),
    ] {
        let flood = Flood::of(protocol, begin, again).await;
        let trusted = ca_file(&flood.ca_pem);
        let connection = Connection {
            ca_file: Some(trusted.path().to_owned()),
            timeout: Duration::from_secs(60),
            ..connection(&format!("https://{}", flood.address))
        };
        let client = TokenClient::new(connection).unwrap();
        for _ in 0..2 {
            let (answer, beside) = tokio::join!(ask(&client, "corp1"), fixture.ask("corp1"));
            let failure = answer.outcome.unwrap_err();
            assert_eq!(failure.kind, FailureKind::Malformed, "{name}: {failure}");
            assert!(beside.outcome.is_ok(), "{name}: {beside:?}");
        }
        // Most of it lies in the buffers of the kernel.
        let sent = flood.sent.load(Ordering::Relaxed);
        assert!(sent < 64 << 20, "{name}: {sent} bytes");
    }
}
