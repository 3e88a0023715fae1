//! `/_sandbox/`: controls the sandbox over HTTP, so that `curl` can cause an outage.
//!
//! | request | does |
//! |---|---|
//! | `GET /_sandbox/` | lists these requests |
//! | `POST /_sandbox/fault?kind=K[&corp_id=C][&client_id=A][&times=N]` | injects a fault; without `times`, until cleared |
//! | … `kind=delay&ms=N` | delays answers |
//! | … `kind=raw&status=S[&content_type=T]`, with a body | sends this as the answer |
//! | `GET /_sandbox/fault` | lists the faults |
//! | `DELETE /_sandbox/fault` | removes all faults |
//! | `GET /_sandbox/calls` | the calls and their totals, as JSON; no secrets, no tokens |

use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request};

use crate::sandbox::answer::{RawAnswer, ScriptedAnswer};
use crate::sandbox::endpoint::SimulatedEndpoint;
use crate::sandbox::faults::{Fault, Scope, Times};

/// The prefix of these paths.
pub(super) const PREFIX: &str = "/_sandbox";

/// Carries out a request, and reports the result.
pub(super) async fn answer(endpoint: &SimulatedEndpoint, request: Request<Incoming>) -> ScriptedAnswer {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    match (request.method().clone(), path.strip_prefix(PREFIX).unwrap_or_default()) {
        (Method::GET, "") => text(200, &help()),
        (Method::GET, "/fault") => text(200, &lines(&endpoint.fault_lines())),
        (Method::DELETE, "/fault") => {
            endpoint.clear_faults();
            text(200, "no faults\n")
        }
        (Method::POST, "/fault") => inject(endpoint, request).await.unwrap_or_else(|why| text(400, &why)),
        (Method::GET, "/calls") => {
            let all = serde_json::json!({ "totals": endpoint.totals(), "calls": endpoint.calls() });
            ScriptedAnswer::json(200, &format!("{all}\n"))
        }
        _ => text(404, &help()),
    }
}

async fn inject(endpoint: &SimulatedEndpoint, request: Request<Incoming>) -> Result<ScriptedAnswer, String> {
    let query = QueryString(request.uri().query().unwrap_or_default().to_owned());
    let kind = query.get("kind").ok_or_else(|| format!("say which: kind=…\n{}", help()))?;
    let fault = match kind {
        "delay" => Fault::Delay(Duration::from_millis(query.number("ms")?.unwrap_or(1000).into())),
        "raw" => {
            let status = query.number("status")?.unwrap_or(200);
            let status = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
            let content_type = query.get("content_type").unwrap_or("application/json").to_owned();
            let body = super::read(request).await.map_err(|error| format!("the body cannot be read: {error}\n"))?;
            Fault::Raw(RawAnswer {
                status: status.ok_or("status is a number from 200 to 599\n")?,
                headers: vec![("content-type".to_owned(), content_type.into_bytes())],
                body: body.to_vec(),
            })
        }
        name => Fault::named(name).ok_or_else(|| format!("there is no fault {name:?}\n{}", help()))?,
    };
    let times = query.number("times")?.map_or(Times::UntilCleared, Times::Next);
    let whose = |key| query.get(key).map(str::to_owned);
    endpoint.inject(Scope { client_id: whose("client_id"), corp_id: whose("corp_id") }, fault, times);
    Ok(text(200, &lines(&endpoint.fault_lines())))
}

/// A query string. Ids and names need no percent-encoding, so none is decoded.
struct QueryString(String);

impl QueryString {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.split('&').filter_map(|pair| pair.split_once('=')).find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    fn number(&self, key: &str) -> Result<Option<u32>, String> {
        self.get(key).map(|text| text.parse().map_err(|_| format!("{key} is a number, not {text:?}\n"))).transpose()
    }
}

fn text(status: u16, body: &str) -> ScriptedAnswer {
    RawAnswer {
        status,
        headers: vec![("content-type".to_owned(), b"text/plain; charset=utf-8".to_vec())],
        body: body.into(),
    }
    .into()
}

fn lines(lines: &[String]) -> String {
    if lines.is_empty() { "no faults\n".to_owned() } else { lines.join("\n") + "\n" }
}

fn help() -> String {
    let kinds: Vec<_> = Fault::all_named().map(|(name, _)| name).collect();
    format!(
        "POST   /_sandbox/fault?kind=K[&corp_id=C][&client_id=A][&times=N]\n\
         GET    /_sandbox/fault\n\
         DELETE /_sandbox/fault\n\
         GET    /_sandbox/calls\n\
         kinds: {}, delay (&ms=N), raw (&status=S&content_type=T and a body)\n",
        kinds.join(", ")
    )
}
