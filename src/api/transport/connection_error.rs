//! Classifies errors of calls without an answer: name resolution, connection, TLS, resets, and answers that are not HTTP.

use std::error::Error;
use std::io;

use rustls::CertificateError;

use super::read_budget::EXCEEDED;
use crate::domain::{Connection, Failure, FailureKind};

/// The failure of a call that was sent over `connection`. Of the error's own text only what the system or the TLS library says is
/// shown: a URL can hold a password, and an HTTP error a part of an answer.
pub(in crate::api) fn failure(error: &reqwest::Error, connection: &Connection) -> Failure {
    let endpoint = &connection.endpoint;
    if error.is_timeout() && error.is_connect() {
        let waited = humantime::format_duration(connection.connect_timeout);
        return Failure::new(FailureKind::Unreachable, format!("no connection to {endpoint} within {waited}"));
    }
    let (kind, why) = chain(error)
        .find_map(|link| reason(link, connection))
        .unwrap_or((FailureKind::Unreachable, "the connection failed".to_owned()));
    let doing = match (error.is_connect(), &connection.proxy) {
        (true, Some(proxy)) => format!("connecting to {endpoint} through {proxy}"),
        (true, None) => format!("connecting to {endpoint}"),
        (false, _) => format!("calling {endpoint}"),
    };
    Failure::new(kind, format!("{doing}: {why}"))
}

/// Whether the server turned out not to speak HTTP/2 any more, and did not get the request.
pub(in crate::api) fn refuses_http2(error: &reqwest::Error) -> bool {
    let no_protocol = rustls::AlertDescription::NoApplicationProtocol;
    chain(error).any(|link| match link.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::AlertReceived(alert)) => *alert == no_protocol,
        Some(rustls::Error::NoApplicationProtocol) => true,
        _ => false,
    })
}

/// Whether the server may no longer speak HTTP/2. A server that speaks HTTP/1.1 alone sends nonsense or closes the connection, as a
/// server that restarts does. A refused connection, a silent one, or one reset stream, says nothing about it.
pub(in crate::api) fn casts_doubt_on_http2(error: &reqwest::Error) -> bool {
    let broken_off = |h2: &h2::Error| h2.is_reset() && h2.is_remote();
    let says_nothing = |link: &(dyn Error + 'static)| {
        link.downcast_ref().is_some_and(broken_off) || link.downcast_ref().is_some_and(hyper::Error::is_timeout)
    };
    !error.is_connect() && !chain(error).any(says_nothing)
}

/// An error and its chain of sources. `io::Error` hides what it wraps from `source()`.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&link: &&'a (dyn Error + 'static)| {
        match link.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => link.source(),
        }
    })
}

fn reason(link: &(dyn Error + 'static), connection: &Connection) -> Option<(FailureKind, String)> {
    if is_flood(link) {
        return Some((FailureKind::Malformed, EXCEEDED.to_owned()));
    }
    if let Some(error) = link.downcast_ref::<rustls::Error>() {
        return Some((FailureKind::Unreachable, tls(error, connection)));
    }
    if let Some(error) = link.downcast_ref::<h2::Error>() {
        return http2(error);
    }
    if let Some(error) = link.downcast_ref::<hyper::Error>() {
        return http(error);
    }
    if let Some(error) = link.downcast_ref::<io::Error>() {
        return system(error, connection);
    }
    // These errors have no public types; their texts are fixed and hold nothing of the call.
    let text = link.to_string();
    let why = if text.starts_with("dns error") {
        let cause = link.source().map(|cause| format!(" ({cause})")).unwrap_or_default();
        format!("the name cannot be resolved{cause}; check `endpoint` and the system's DNS")
    } else if text.contains("proxy authorization required") {
        "the proxy wants a user and a password; set them in `proxy`".to_owned()
    } else if text.starts_with("tunnel error: unsuccessful") {
        "the proxy refused the tunnel".to_owned()
    } else {
        return None;
    };
    Some((FailureKind::Unreachable, why))
}

/// Whether the read budget ended the connection. HTTP/2 keeps only the text of an I/O error.
fn is_flood(link: &(dyn Error + 'static)) -> bool {
    let is_io = link.downcast_ref::<h2::Error>().is_some_and(h2::Error::is_io);
    let is_tls = matches!(link.downcast_ref(), Some(rustls::Error::General(_)));
    (is_io || is_tls || link.is::<io::Error>()) && link.to_string().contains(EXCEEDED)
}

fn tls(error: &rustls::Error, connection: &Connection) -> String {
    let Connection { ca_file, .. } = connection;
    let trusted = match ca_file {
        Some(path) => format!("ca_file {} does not hold its issuer", path.display()),
        None => {
            "the system does not trust its issuer; if a proxy signs it, name the proxy's CA in `ca_file`".to_owned()
        }
    };
    use CertificateError as Flaw;
    match error {
        rustls::Error::InvalidCertificate(Flaw::Expired | Flaw::ExpiredContext { .. }) => {
            "the server's certificate has expired (or this machine's clock is wrong)".to_owned()
        }
        rustls::Error::InvalidCertificate(Flaw::NotValidYet | Flaw::NotValidYetContext { .. }) => {
            "the server's certificate is not valid yet (or this machine's clock is wrong)".to_owned()
        }
        rustls::Error::InvalidCertificate(Flaw::NotValidForName | Flaw::NotValidForNameContext { .. }) => {
            "the server's certificate is for another host; check `endpoint`".to_owned()
        }
        // A bad signature mostly means that an authority was replaced by one of the same name.
        rustls::Error::InvalidCertificate(Flaw::UnknownIssuer | Flaw::BadSignature) => {
            format!("the server's certificate is not trusted: {trusted}")
        }
        rustls::Error::InvalidCertificate(flaw) => format!("the server's certificate is refused: {flaw}; {trusted}"),
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS; check `endpoint`".to_owned(),
        other => format!("TLS: {other}"),
    }
}

fn http2(error: &h2::Error) -> Option<(FailureKind, String)> {
    if error.is_io() {
        return None;
    }
    let reason = error.reason().map_or_else(String::new, |reason| format!(" ({})", reason.description()));
    Some(if error.is_remote() {
        (FailureKind::Unreachable, format!("the server reset the call{reason}"))
    } else {
        (FailureKind::Malformed, format!("the answer is not valid HTTP/2{reason}"))
    })
}

fn http(error: &hyper::Error) -> Option<(FailureKind, String)> {
    let unreachable = |why: &str| Some((FailureKind::Unreachable, why.to_owned()));
    if error.is_parse() {
        Some((FailureKind::Malformed, "the answer is not valid HTTP".to_owned()))
    } else if error.is_incomplete_message() {
        unreachable("the connection was closed before the answer was whole")
    } else if error.is_timeout() {
        unreachable("the connection went silent")
    } else if error.source().is_some() {
        None
    } else {
        unreachable("the connection was closed")
    }
}

fn system(error: &io::Error, connection: &Connection) -> Option<(FailureKind, String)> {
    use io::ErrorKind as Kind;
    let why = match error.kind() {
        Kind::ConnectionRefused => "connection refused".to_owned(),
        Kind::ConnectionReset => "the connection was reset".to_owned(),
        Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof => "the connection was closed".to_owned(),
        Kind::AddrNotAvailable => match connection.local_address {
            Some(address) => format!("local_address {address} is not an address of this machine"),
            None => "no free local port".to_owned(),
        },
        // The system's own text. A wrapped error is classified by itself.
        _ if error.get_ref().is_none() => error.to_string(),
        _ => return None,
    };
    Some((FailureKind::Unreachable, why))
}
