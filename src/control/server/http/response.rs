//! Responses: JSON with status 200, and refusals.

use std::io;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};

use crate::control::protocol::ErrorBody;
use crate::control::server::connection_limit::CONNECTIONS_A_USER;
use crate::control::server::query::Stopping;

/// A response's body, whole or streamed.
pub(in crate::control::server) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A value as JSON, on one line.
pub(super) fn json(value: &impl serde::Serialize) -> Result<Response<Body>, Refusal> {
    let text = serde_json::to_vec(value).map_err(|e| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer cannot be written as JSON: {e}"))
    })?;
    Ok(json_response(whole(text)))
}

/// A response whose body is JSON.
pub(super) fn json_response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn whole(mut text: Vec<u8>) -> Body {
    text.push(b'\n');
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

/// A response other than 200.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: String,
    allow: Option<Method>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), allow: None }
    }

    pub(super) fn bad_request(error: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn method_not_allowed(allowed: Method) -> Self {
        let error = format!("only {allowed} is possible here");
        Self { status: StatusCode::METHOD_NOT_ALLOWED, error, allow: Some(allowed) }
    }

    pub(super) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "only root, the daemon's user and members of the socket's group may ask")
    }

    pub(super) fn too_many_dry_runs() -> Self {
        let error = "too many dry runs wait already, or the daemon is stopping; try again shortly";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    pub(super) fn too_many_connections() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections; try again shortly")
    }

    pub(super) fn too_many_connections_of_user() -> Self {
        let error = format!("your user has {CONNECTIONS_A_USER} connections already; close some, or try again shortly");
        Self::new(StatusCode::TOO_MANY_REQUESTS, error)
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response =
            json_response(whole(serde_json::to_vec(&ErrorBody { error: self.error }).unwrap_or_default()));
        *response.status_mut() = self.status;
        if let Some(method) = self.allow.and_then(|m| HeaderValue::from_str(m.as_str()).ok()) {
            response.headers_mut().insert(ALLOW, method);
        }
        response
    }
}

impl From<Stopping> for Refusal {
    fn from(stopping: Stopping) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, stopping.to_string())
    }
}
