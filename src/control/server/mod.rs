//! The daemon's end of the control socket. It knows HTTP and nothing else: every answer comes from the daemon.
//!
//! Goes in: a listening socket and the [`AccessPolicy`] of its file. Comes out: a [`Query`] for each request. A connection
//! passes `peer` (who is it?), `connection_limit` (may it be served now?) and `slow_client` (does it read on?); its requests
//! are answered in `http`. `control::thread` runs it.

mod connection_limit;
mod http;
mod peer;
mod query;
mod slow_client;
mod socket;

use std::convert::Infallible;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use connection_limit::{Admission, ConnectionLimits};
use query::Queries;
use slow_client::SlowClientGuard;

pub use connection_limit::{CONNECTIONS_A_USER, MAX_CONNECTIONS};
pub use peer::AccessPolicy;
pub use query::Query;
pub use socket::{bind, unbind};

/// How long a peer may take to send a request's head or its body, and how long it may be silent between requests.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long answers that are under way may take once the daemon stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait after a connection could not be accepted (out of file descriptors, say).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The longest head of a request, in bytes. Ours have a hundred.
const MAX_HEAD: usize = 16 << 10;

/// Answers on `listener` until `shutdown` completes; then answers that are under way get a second.
///
/// Each connection costs its own user alone. Connections are limited by user (429 beyond the limit, 503 where all are taken), a
/// request must arrive within 10 s, and the client must read an answer at 64 KiB a minute at least.
pub async fn serve(
    listener: UnixListener,
    queries: mpsc::Sender<Query>,
    access: AccessPolicy,
    shutdown: impl Future<Output = ()>,
) {
    let queries = Queries(queries);
    let (stop, stopped) = watch::channel(());
    let (mut connections, mut limits) = (JoinSet::new(), ConnectionLimits::default());
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next_with_id() => {
                limits.remove(ended.map_or_else(|defect| defect.id(), |(id, ())| id));
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Ok(peer) = stream.peer_cred().map(|peer| access.classify(peer)) else { continue };
                    let Some(admission) = limits.admit(peer) else { continue };
                    let task = connections.spawn(serve_connection(stream, queries.clone(), admission, stopped.clone()));
                    limits.insert(task.id(), peer, admission);
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
    // Connections that are left are dropped with the set, which ends them.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
}

/// Serves one connection to its end. A connection that is turned away gets one answer, which says why.
async fn serve_connection(
    stream: UnixStream,
    queries: Queries,
    admission: Admission,
    mut stopped: watch::Receiver<()>,
) {
    let service = service_fn(|request| {
        let queries = queries.clone();
        async move { Ok::<_, Infallible>(http::respond(request, queries, admission, REQUEST_TIMEOUT).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .keep_alive(admission == Admission::Served)
        .serve_connection(TokioIo::new(SlowClientGuard::new(stream, slow_client::WINDOW)), service);
    tokio::pin!(connection);
    // The peer's own errors (it went away, it sent nonsense) are not logged.
    tokio::select! {
        _ = &mut connection => return,
        _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
