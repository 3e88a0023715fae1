//! The daemon's end of the control socket. It knows HTTP and nothing else: every answer is asked of the daemon.

mod connection_limit;
mod peer;
mod slow_client;
mod socket;
mod tenant_list;

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::protocol::{ErrorBody, Filter, Page, ReloadRequest, Status, TenantRow, Verdict};
use crate::domain::TenantId;
use connection_limit::{Place, Shares};
use slow_client::Patient;
use tenant_list::{Body, parse_filter};

pub use connection_limit::{CONNECTIONS_A_USER, MAX_CONNECTIONS};
pub use peer::Admission;
pub use socket::{bind, unbind};

/// The longest body of a request, in bytes.
const MAX_BODY: usize = 4096;

/// How long a peer may take to send a request's head, and how long it may be silent between requests.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);

/// How long answers that are under way may take once the daemon stops.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait when a connection cannot be accepted (out of file descriptors, say).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The longest head of a request, in bytes. Ours have a hundred.
const MAX_HEAD: usize = 16 << 10;

/// What the daemon is asked. A reply that is dropped is answered with 503.
#[derive(Debug)]
pub enum Query {
    /// The summary.
    Status(oneshot::Sender<Status>),
    /// Some rows, in the order of the ids.
    Page {
        /// Only ids after this one.
        after: Option<TenantId>,
        /// So many tenants are looked at.
        limit: usize,
        /// Which of these are wanted.
        filter: Filter,
        /// The rows.
        reply: oneshot::Sender<Page>,
    },
    /// One row; `None` when there is no such tenant.
    Tenant(TenantId, oneshot::Sender<Option<TenantRow>>),
    /// Read the config now, and answer once it is applied or rejected.
    Reload {
        /// How.
        request: ReloadRequest,
        /// What became of it.
        reply: oneshot::Sender<Verdict>,
    },
}

/// Answers on `listener` until `shutdown` completes; then answers that are under way get a second.
///
/// Each connection costs its own user alone: connections are shared out by user (429 beyond the share, 503 where all are taken), a request must come
/// within 10 s, and an answer must be taken, 64 KiB a minute at least.
pub async fn serve(
    listener: UnixListener,
    queries: mpsc::Sender<Query>,
    admission: Admission,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopped) = watch::channel(());
    let (mut connections, mut shares) = (JoinSet::new(), Shares::default());
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next_with_id() => {
                shares.leave(ended.map_or_else(|defect| defect.id(), |(id, ())| id));
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Ok(peer) = stream.peer_cred().map(|peer| admission.judge(peer)) else { continue };
                    let Some(place) = shares.place_for(peer) else { continue };
                    let task = connections.spawn(converse(stream, queries.clone(), place, stopped.clone()));
                    shares.enter(task.id(), peer, place);
                }
                Err(e) => {
                    tracing::warn!(event = "control_accept_failed", "cannot accept a control connection: {e}");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            },
        }
    }
    drop(listener);
    drop(stop);
    let drained = async { while connections.join_next().await.is_some() {} };
    // What is left is dropped with the set, which ends it.
    let _ = tokio::time::timeout(STOP_PATIENCE, drained).await;
}

/// One connection, to its end. One that is not served gets one answer, which says why.
async fn converse(stream: UnixStream, queries: mpsc::Sender<Query>, place: Place, mut stopped: watch::Receiver<()>) {
    let service = service_fn(|request| {
        let queries = queries.clone();
        async move {
            let answered = match place {
                Place::Served => handle(request, queries).await,
                Place::Forbidden => Err(Refusal::forbidden()),
                Place::UserCrowded => Err(Refusal::user_crowded()),
                Place::Crowded => Err(Refusal::crowded()),
            };
            Ok::<_, Infallible>(answered.unwrap_or_else(Refusal::into_response))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .max_buf_size(MAX_HEAD)
        .keep_alive(place == Place::Served)
        .serve_connection(TokioIo::new(Patient::new(stream, slow_client::PATIENCE)), service);
    tokio::pin!(connection);
    // The peer's own faults (it went away, it spoke nonsense) are its own concern.
    tokio::select! {
        _ = &mut connection => return,
        _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn handle(request: Request<Incoming>, queries: mpsc::Sender<Query>) -> Result<Response<Body>, Refusal> {
    let (head, body) = request.into_parts();
    let path: Vec<&str> = head.uri.path().split('/').skip(1).collect();
    let query = head.uri.query().unwrap_or("");
    let only = |allowed: Method| if head.method == allowed { Ok(()) } else { Err(Refusal::method(allowed)) };
    match path[..] {
        ["v1", "status"] => {
            only(Method::GET)?;
            json(&ask(&queries, Query::Status).await?)
        }
        ["v1", "tenants"] => {
            only(Method::GET)?;
            let filter = parse_filter(query).map_err(Refusal::bad)?;
            Ok(with_type(Response::new(Body::rows(queries, filter))))
        }
        ["v1", "tenants", app, corp_id] => {
            only(Method::GET)?;
            let id: TenantId = format!("{app}/{corp_id}").parse().map_err(|e| Refusal::bad(format!("{e}")))?;
            let row = ask(&queries, |reply| Query::Tenant(id.clone(), reply)).await?;
            json(&row.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("there is no tenant {id}")))?)
        }
        ["v1", "reload"] => {
            only(Method::POST)?;
            let request: ReloadRequest = read(body).await?;
            let asked = ask_ahead(&queries, |reply| Query::Reload { request, reply }).await?;
            json(&asked.await.map_err(|_| Refusal::busy())?)
        }
        _ => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "there is GET /v1/status, GET /v1/tenants, GET /v1/tenants/{app}/{corp_id} and POST /v1/reload",
        )),
    }
}

/// Asks the daemon, and waits for its answer.
async fn ask<T>(queries: &mpsc::Sender<Query>, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, Refusal> {
    answer(ask_ahead(queries, query).await?).await
}

/// Asks the daemon; the answer comes in its own time.
pub(super) async fn ask_ahead<T>(
    queries: &mpsc::Sender<Query>,
    query: impl FnOnce(oneshot::Sender<T>) -> Query,
) -> Result<oneshot::Receiver<T>, Refusal> {
    let (reply, answer) = oneshot::channel();
    queries.send(query(reply)).await.map_err(|_| Refusal::stopping())?;
    Ok(answer)
}

/// Waits for what the daemon was asked.
pub(super) async fn answer<T>(asked: oneshot::Receiver<T>) -> Result<T, Refusal> {
    asked.await.map_err(|_| Refusal::stopping())
}

/// A request's body as JSON; an empty one is the default.
async fn read<T: serde::de::DeserializeOwned + Default>(body: Incoming) -> Result<T, Refusal> {
    let too_slow = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request's body did not come in time");
    let collected = tokio::time::timeout(HEADER_PATIENCE, Limited::new(body, MAX_BODY).collect());
    let bytes = collected.await.map_err(too_slow)?.map_err(|_| {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a request's body has at most {MAX_BODY} bytes"))
    })?;
    let bytes = bytes.to_bytes();
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes).map_err(|e| Refusal::bad(format!("the request's body is not what is expected: {e}")))
}

fn json(value: &impl serde::Serialize) -> Result<Response<Body>, Refusal> {
    let mut text = serde_json::to_vec(value).map_err(|e| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer cannot be written as JSON: {e}"))
    })?;
    text.push(b'\n');
    Ok(with_type(Response::new(Body::whole(text.into()))))
}

fn with_type(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer other than 200.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: String,
    allow: Option<Method>,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), allow: None }
    }

    fn bad(error: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    fn method(allowed: Method) -> Self {
        let error = format!("only {allowed} is possible here");
        Self { status: StatusCode::METHOD_NOT_ALLOWED, error, allow: Some(allowed) }
    }

    fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "only root, the daemon's user and members of the socket's group may ask")
    }

    fn busy() -> Self {
        let why = "too many dry runs wait already, or the daemon is stopping; try again shortly";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, why)
    }

    fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")
    }

    fn crowded() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections; try again shortly")
    }

    fn user_crowded() -> Self {
        let error = format!("your user has {CONNECTIONS_A_USER} connections already; close some, or try again shortly");
        Self::new(StatusCode::TOO_MANY_REQUESTS, error)
    }

    /// As an error of a stream that has begun, where no status can be sent any more.
    pub(super) fn into_io(self) -> io::Error {
        io::Error::other(self.error)
    }

    fn into_response(self) -> Response<Body> {
        let mut text = serde_json::to_vec(&ErrorBody { error: self.error }).unwrap_or_default();
        text.push(b'\n');
        let mut response = with_type(Response::new(Body::whole(Bytes::from(text))));
        *response.status_mut() = self.status;
        if let Some(method) = self.allow.and_then(|m| HeaderValue::from_str(m.as_str()).ok()) {
            response.headers_mut().insert(ALLOW, method);
        }
        response
    }
}
