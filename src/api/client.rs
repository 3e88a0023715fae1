//! One call from beginning to end.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use reqwest::Url;
use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use rustls::ClientConfig;

use crate::domain::{ClientId, Connection, CorpId, Failure, FailureKind, Secret, WallMs};

use super::Answer;
use super::classify::{HttpAnswer, classify};
use super::transport::{Metered, ProtocolChoice, Resolver, TrustError, body, connection_error, tls};

/// The size limit of an answer's headers, in bytes.
const MAX_HEADERS: u32 = 16 * 1024;

/// The HTTP/2 window of a call, in bytes: a server may send no more than is read of an answer.
const STREAM_WINDOW: u32 = 64 * 1024;

/// Why no client can be made for a connection.
#[derive(Debug, thiserror::Error)]
pub enum TokenClientError {
    /// There are no trusted certificates: `ca_file`, or the system's roots.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The proxy's URL is invalid.
    #[error("proxy {0}: not a URL that can be used; it is written http://[user:password@]host:port")]
    Proxy(String),
    /// The HTTP client could not be made.
    #[error("the HTTP client for {endpoint} cannot be made: {reason}")]
    Setup {
        /// The endpoint.
        endpoint: String,
        /// The library's error.
        reason: reqwest::Error,
    },
}

/// Calls one endpoint over one [`Connection`]. Apps with equal connections share a client and its connection pool; so do clones,
/// which are cheap.
#[derive(Clone)]
pub struct TokenClient(Arc<Inner>);

struct Inner {
    connection: Connection,
    /// The endpoint, parsed once.
    url: Url,
    protocol: ProtocolChoice,
    metered: Metered,
}

impl TokenClient {
    /// Makes the client without connecting. Reads `ca_file`, or else the system's roots.
    ///
    /// # Errors
    /// See [`TokenClientError`].
    pub fn new(connection: Connection) -> Result<Self, TokenClientError> {
        let metered = Metered::new();
        let protocol = if connection.endpoint.as_str().starts_with("https://") {
            let tls = tls::config(connection.ca_file.as_deref(), metered.provider())?;
            let negotiating = builder(&connection, &tls, &[b"h2", b"http/1.1"])?;
            let http2 = builder(&connection, &tls, &[b"h2"])?.http2_prior_knowledge();
            ProtocolChoice::new(build(negotiating, &connection)?, Some(build(http2, &connection)?))
        } else {
            ProtocolChoice::new(build(builder(&connection, &tls::unused(), &[])?.http1_only(), &connection)?, None)
        };
        let url = protocol.fallback().client.post(connection.endpoint.as_str()).build();
        let url = url.map_err(|reason| setup(reason, &connection))?.url().clone();
        Ok(Self(Arc::new(Inner { connection, url, protocol, metered })))
    }

    /// How long a whole call may take.
    pub fn timeout(&self) -> Duration {
        self.0.connection.timeout
    }

    /// Requests the token of one organisation: one `POST /v1.0/oauth2/{corpId}/token`. The call takes no longer than the
    /// connection's `timeout`, and may be dropped at any time. A request that the server provably did not process (on a
    /// connection that it had begun to close) is sent again.
    pub async fn request_token(&self, client_id: &ClientId, secret: &Secret, corp_id: &CorpId) -> Answer {
        let Inner { connection, metered, .. } = &*self.0;
        let _allowance = metered.budget.call();
        match tokio::time::timeout(connection.timeout, self.0.call(client_id, secret, corp_id)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(failure)) => Answer { outcome: Err(failure), server_date: None },
            Err(_) => {
                let waited = humantime::format_duration(connection.timeout);
                let detail = format!("calling {}: no whole answer within {waited}", connection.endpoint);
                Answer { outcome: Err(Failure::new(FailureKind::Timeout, detail)), server_date: None }
            }
        }
    }
}

impl std::fmt::Debug for TokenClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenClient({})", self.0.connection.endpoint)
    }
}

impl Inner {
    /// # Errors
    /// When there is no answer to judge.
    async fn call(&self, client_id: &ClientId, secret: &Secret, corp_id: &CorpId) -> Result<Answer, Failure> {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/v1.0/oauth2/{corp_id}/token", self.url.path().trim_end_matches('/')));
        let request = body::request(client_id, secret);
        let mut response = self.send(url, request).await?;
        let failed = |error: reqwest::Error| connection_error::failure(&error.without_url(), &self.connection);

        let server_date = header(response.headers(), &DATE)
            .and_then(|date| httpdate::parse_http_date(date).ok())
            .and_then(|date| date.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| u64::try_from(since.as_millis()).ok())
            .map(WallMs);
        let refuse = |detail: String| {
            let outcome = Err(Failure::new(FailureKind::Malformed, detail));
            Ok(Answer { outcome, server_date })
        };
        if size_of_headers(response.headers()) > MAX_HEADERS as usize {
            return refuse(format!("the answer's headers are larger than {MAX_HEADERS} bytes"));
        }
        let mut buffer = body::AnswerBuffer::new(response.content_length());
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if buffer.push(&chunk).is_err() {
                return refuse(format!("the answer is larger than {} bytes", body::MAX_ANSWER));
            }
        }
        let headers = response.headers();
        let outcome = classify(&HttpAnswer {
            status: response.status().as_u16(),
            content_type: header(headers, &CONTENT_TYPE),
            content_encoding: headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?")),
            retry_after: header(headers, &RETRY_AFTER),
            date: header(headers, &DATE),
            body: buffer.as_slice(),
            secret: secret.expose(),
        });
        Ok(Answer { outcome, server_date })
    }

    /// Sends the request over the protocol that the server is known to speak, and learns from the outcome.
    async fn send(&self, url: Url, body: bytes::Bytes) -> Result<reqwest::Response, Failure> {
        let send = |client: &reqwest::Client| client.post(url.clone()).body(body.clone()).send();
        let choice = self.protocol.choose().await;
        let mut sent = send(choice.client).await;
        if let Err(error) = &sent
            && choice.is_http2
        {
            let refused = connection_error::refuses_http2(error);
            if refused || connection_error::casts_doubt_on_http2(error) {
                self.protocol.forget();
            }
            if refused {
                sent = send(self.protocol.fallback().client).await;
            }
        }
        match sent {
            Ok(response) => {
                self.protocol.learn(response.version());
                Ok(response)
            }
            Err(error) => Err(connection_error::failure(&error.without_url(), &self.connection)),
        }
    }
}

fn builder(
    connection: &Connection,
    tls: &ClientConfig,
    alpn: &[&[u8]],
) -> Result<reqwest::ClientBuilder, TokenClientError> {
    let mut tls = tls.clone();
    tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // On a connection whose peer is gone, calls are lost until the kernel gives up, a quarter of an hour later. Pings, while calls
    // are in flight, detect that within one call's time.
    let ping = (connection.timeout / 3).clamp(Duration::from_millis(500), Duration::from_secs(5));
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .default_headers(headers)
        .user_agent(concat!("corptokend/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(connection.connect_timeout)
        .dns_resolver(Resolver::of_the_system(connection.connect_timeout))
        .local_address(connection.local_address)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_keep_alive_interval(ping)
        .http2_keep_alive_timeout(ping)
        .tcp_user_timeout(connection.timeout);
    match &connection.proxy {
        Some(proxy) => {
            let all = reqwest::Proxy::all(proxy.expose()).map_err(|_| TokenClientError::Proxy(proxy.to_string()))?;
            Ok(builder.no_proxy().proxy(all))
        }
        None if is_loopback(connection.endpoint.as_str()) => Ok(builder.no_proxy()),
        None => Ok(builder),
    }
}

fn build(builder: reqwest::ClientBuilder, connection: &Connection) -> Result<reqwest::Client, TokenClientError> {
    builder.build().map_err(|reason| setup(reason, connection))
}

fn setup(reason: reqwest::Error, connection: &Connection) -> TokenClientError {
    TokenClientError::Setup { endpoint: connection.endpoint.to_string(), reason: reason.without_url() }
}

/// Whether the endpoint is on this machine, where a proxy named by the environment could not reach it.
fn is_loopback(endpoint: &str) -> bool {
    use std::net::IpAddr;
    let Ok(url) = reqwest::Url::parse(endpoint) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn size_of_headers(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}
