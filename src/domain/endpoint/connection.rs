//! How the endpoint is reached, and where a client secret is stored.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

/// The endpoint's base URL, without a trailing slash: `https://…`, or `http://` to a loopback address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(Box<str>);

/// Why an endpoint was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// It is not `https://host[:port][/path]`.
    #[error("an endpoint is written `https://host[:port]`, without user, query or fragment")]
    NotAUrl,
    /// It is `http://`, and the host is not a loopback address.
    #[error("plain `http://` is accepted only to a loopback address (127.0.0.1, [::1], localhost); use `https://`")]
    PlainText,
}

impl Endpoint {
    /// Checks `text`.
    pub fn new(text: &str) -> Result<Self, InvalidEndpoint> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidEndpoint::NotAUrl)?;
        let authority = rest.split('/').next().unwrap_or_default();
        let plausible =
            !authority.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"?#@\\\"<>^`{|}%".contains(&b));
        let host = Self::host_of(authority).filter(|_| plausible).ok_or(InvalidEndpoint::NotAUrl)?;
        match scheme {
            "https" => {}
            "http" if Self::is_loopback(host) => {}
            "http" => return Err(InvalidEndpoint::PlainText),
            _ => return Err(InvalidEndpoint::NotAUrl),
        }
        Ok(Self(text.trim_end_matches('/').into()))
    }

    fn host_of(authority: &str) -> Option<&str> {
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, port)
            }
            None => authority.find(':').map_or((authority, ""), |colon| authority.split_at(colon)),
        };
        let port_ok = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok());
        (port_ok && !host.is_empty()).then_some(host)
    }

    fn is_loopback(host: &str) -> bool {
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// The URL, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host, without its port: a name or an address.
    pub fn host(&self) -> &str {
        Self::host_of(self.authority()).expect("the constructor found it")
    }

    /// The host, with its port where the URL names one.
    pub fn authority(&self) -> &str {
        let rest = self.0.split_once("://").map_or(&*self.0, |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A proxy's URL. It may hold a password, so it is never shown whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy(Zeroizing<String>);

impl Proxy {
    /// Takes `text` if it is `http://…` or `https://…`.
    pub fn new(text: Zeroizing<String>) -> Option<Self> {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
        (!rest.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then_some(Self(text))
    }

    /// The whole URL, password included, for the HTTP client.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Proxy {
    /// The URL without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        write!(f, "{scheme}://{host}")
    }
}

/// All settings of a connection. Apps with equal ones share connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The proxy; `None`: as the environment says (`HTTPS_PROXY`, `NO_PROXY`).
    pub proxy: Option<Proxy>,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The address to call from.
    pub local_address: Option<IpAddr>,
    /// The time limit of a whole call.
    pub timeout: Duration,
    /// The time limit of connecting.
    pub connect_timeout: Duration,
}

/// Where a client secret is stored. The secret itself is read at each use.
///
/// The text is the operator's, who may have written the secret itself by mistake. So neither `Display` nor `Debug` shows it, and a
/// message may name it only if the source could be read.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// A systemd credential: a file of this name in `$CREDENTIALS_DIRECTORY`.
    Credential(Box<str>),
    /// An environment variable.
    Env(Box<str>),
}

impl fmt::Display for SecretSource {
    /// The kind of source, and the key that names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File(_) => "the file that `client_secret` names",
            Self::Credential(_) => "the credential that `client_secret` names",
            Self::Env(_) => "the environment variable that `client_secret` names",
        })
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File(_) => "File(…)",
            Self::Credential(_) => "Credential(…)",
            Self::Env(_) => "Env(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_alone() {
        for good in ["https://api.dingtalk.com", "https://h:8443/base/", "http://127.0.0.1:80", "http://[::1]:9"] {
            assert!(Endpoint::new(good).is_ok(), "{good}");
        }
        assert_eq!(Endpoint::new("https://h/").unwrap().as_str(), "https://h");
        assert_eq!(Endpoint::new("http://api.dingtalk.com"), Err(InvalidEndpoint::PlainText));
        assert_eq!(Endpoint::new("http://127.0.0.1.evil.com"), Err(InvalidEndpoint::PlainText));
        for bad in
            ["api.dingtalk.com", "ftp://h", "https://", "https://u:p@h", "https://h?x", "https://h:x", "https://h:"]
        {
            assert_eq!(Endpoint::new(bad), Err(InvalidEndpoint::NotAUrl), "{bad}");
        }
    }

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        let proxy = Proxy::new(Zeroizing::new("http://user:hunter2@proxy:3128".to_owned())).unwrap();
        assert_eq!(format!("{proxy} {proxy:?}"), "http://proxy:3128 http://proxy:3128");
    }
}
