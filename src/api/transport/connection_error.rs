//! What it means when there is no answer: name resolution, connection, TLS, resets, and answers that are not HTTP.

use std::error::Error;
use std::io;

use rustls::CertificateError;

use super::read_budget::EXCEEDED;
use crate::domain::{Connection, Failure, FailureKind};

/// What went wrong with a call that was sent through `connection`. Nothing of the error's own text is shown but what the
/// system or the TLS library says: a URL can hold a password, an HTTP error a part of an answer.
pub(in crate::api) fn failure(error: &reqwest::Error, connection: &Connection) -> Failure {
    let endpoint = &connection.endpoint;
    if error.is_timeout() && error.is_connect() {
        let waited = humantime::format_duration(connection.connect_timeout);
        return Failure::new(FailureKind::Unreachable, format!("no connection to {endpoint} within {waited}"));
    }
    let (kind, why) = links(error)
        .find_map(|link| reason(link, connection))
        .unwrap_or((FailureKind::Unreachable, "the connection failed".to_owned()));
    let doing = match (error.is_connect(), &connection.proxy) {
        (true, Some(proxy)) => format!("connecting to {endpoint} through {proxy}"),
        (true, None) => format!("connecting to {endpoint}"),
        (false, _) => format!("calling {endpoint}"),
    };
    Failure::new(kind, format!("{doing}: {why}"))
}

/// Whether the server turned out not to speak the HTTP/2 that it spoke before, and got no request.
pub(in crate::api) fn refuses_http2(error: &reqwest::Error) -> bool {
    let no_protocol = rustls::AlertDescription::NoApplicationProtocol;
    links(error).any(|link| match link.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::AlertReceived(alert)) => *alert == no_protocol,
        Some(rustls::Error::NoApplicationProtocol) => true,
        _ => false,
    })
}

/// Whether the server may no longer speak HTTP/2. Those that speak HTTP/1.1 alone answer nonsense or just hang up, as a
/// server that restarts does; a refused connection, a silent one, or one call that was broken off, says nothing.
pub(in crate::api) fn casts_doubt_on_http2(error: &reqwest::Error) -> bool {
    let broken_off = |h2: &h2::Error| h2.is_reset() && h2.is_remote();
    let says_nothing = |link: &(dyn Error + 'static)| {
        link.downcast_ref().is_some_and(broken_off) || link.downcast_ref().is_some_and(hyper::Error::is_timeout)
    };
    !error.is_connect() && !links(error).any(says_nothing)
}

/// An error and everything that it came from. `io::Error` hides what it wraps from `source()`.
fn links<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
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
    // These errors have no public types; their words are fixed and hold nothing of the call.
    let words = link.to_string();
    let why = if words.starts_with("dns error") {
        let cause = link.source().map(|cause| format!(" ({cause})")).unwrap_or_default();
        format!("the name cannot be resolved{cause}; check `endpoint` and the system's DNS")
    } else if words.contains("proxy authorization required") {
        "the proxy wants a user and a password; set them in `proxy`".to_owned()
    } else if words.starts_with("tunnel error: unsuccessful") {
        "the proxy refused the tunnel".to_owned()
    } else {
        return None;
    };
    Some((FailureKind::Unreachable, why))
}

/// Whether the connection was ended because too much came over it. HTTP/2 keeps of an I/O error its text alone.
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
        // A signature is bad, most often, when an authority of the same name was made anew.
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
        (FailureKind::Unreachable, format!("the server broke the call off{reason}"))
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
        // The system's own words; a wrapped error is looked at by itself.
        _ if error.get_ref().is_none() => error.to_string(),
        _ => return None,
    };
    Some((FailureKind::Unreachable, why))
}
