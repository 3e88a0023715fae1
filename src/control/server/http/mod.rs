//! Requests and responses: which path asks the daemon what, and how the answer is written.

mod response;
mod tenant_list;

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use super::connection_limit::Admission;
use super::query::{Queries, Query};
use crate::control::protocol::ReloadRequest;
use crate::domain::TenantId;
use response::{Body, Refusal, json, json_response};
use tenant_list::{parse_filter, tenant_list};

/// The longest body of a request, in bytes.
const MAX_BODY: usize = 4096;

/// Responds to one request of a connection that was admitted so.
pub(super) async fn respond(
    request: Request<Incoming>,
    queries: Queries,
    admission: Admission,
    body_timeout: Duration,
) -> Response<Body> {
    let answered = match admission {
        Admission::Served => answer(request, queries, body_timeout).await,
        Admission::Forbidden => Err(Refusal::forbidden()),
        Admission::UserLimit => Err(Refusal::too_many_connections_of_user()),
        Admission::TotalLimit => Err(Refusal::too_many_connections()),
    };
    answered.unwrap_or_else(Refusal::into_response)
}

async fn answer(
    request: Request<Incoming>,
    queries: Queries,
    body_timeout: Duration,
) -> Result<Response<Body>, Refusal> {
    let (head, body) = request.into_parts();
    let path: Vec<&str> = head.uri.path().split('/').skip(1).collect();
    let only = |allowed: Method| {
        if head.method == allowed { Ok(()) } else { Err(Refusal::method_not_allowed(allowed)) }
    };
    match path[..] {
        ["v1", "status"] => {
            only(Method::GET)?;
            json(&queries.ask(Query::Status).await?)
        }
        ["v1", "tenants"] => {
            only(Method::GET)?;
            let filter = parse_filter(head.uri.query().unwrap_or("")).map_err(Refusal::bad_request)?;
            Ok(json_response(tenant_list(queries, filter)))
        }
        ["v1", "tenants", app, corp_id] => {
            only(Method::GET)?;
            let id: TenantId = format!("{app}/{corp_id}").parse().map_err(|e| Refusal::bad_request(format!("{e}")))?;
            let row = queries.ask(|reply| Query::Tenant(id.clone(), reply)).await?;
            json(&row.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("there is no tenant {id}")))?)
        }
        ["v1", "reload"] => {
            only(Method::POST)?;
            let request: ReloadRequest = read(body, body_timeout).await?;
            let verdict = queries.send(|reply| Query::Reload { request, reply }).await?;
            json(&verdict.await.map_err(|_| Refusal::too_many_dry_runs())?)
        }
        _ => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "there is GET /v1/status, GET /v1/tenants, GET /v1/tenants/{app}/{corp_id} and POST /v1/reload",
        )),
    }
}

/// A request's body as JSON; an empty one is the default.
async fn read<T: serde::de::DeserializeOwned + Default>(body: Incoming, timeout: Duration) -> Result<T, Refusal> {
    let too_slow = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request's body did not come in time");
    let too_large =
        |_| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a request's body has at most {MAX_BODY} bytes"));
    let collected = tokio::time::timeout(timeout, Limited::new(body, MAX_BODY).collect());
    let bytes = collected.await.map_err(too_slow)?.map_err(too_large)?.to_bytes();
    if bytes.is_empty() {
        return Ok(T::default());
    }
    let invalid = |e| Refusal::bad_request(format!("the request's body is not what is expected: {e}"));
    serde_json::from_slice(&bytes).map_err(invalid)
}
