//! The server: sockets, TLS and HTTP.

mod admin;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::answer::{AnswerBody, Manner, ScriptedAnswer};
use super::endpoint::{Caller, Protocol, SharedEndpoint};
use super::tls::Protocols;

/// The largest request that is read, in bytes.
const MAX_REQUEST: usize = 64 * 1024;

/// Accepts connections until told to stop, or until the sandbox is dropped.
pub(super) async fn run(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    endpoint: SharedEndpoint,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop_requested(&mut stopped) => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(stream, peer, acceptor.clone(), Arc::clone(&endpoint)));
                }
                // Out of descriptors, most likely: the next one may find some.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
        }
    }
}

/// Returns once the sandbox is stopped or dropped.
async fn stop_requested(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|&stop| stop).await;
}

/// How a connection shall end.
enum Ending {
    /// After the answers that are in flight.
    Graceful,
    /// At once, with a TCP reset.
    Reset,
}

/// With TLS or without. One type for both, so that hyper's server is compiled once.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

struct ServedConnection {
    number: u64,
    peer: SocketAddr,
    endpoint: SharedEndpoint,
    /// How many requests are left before it is closed gracefully.
    left: Option<AtomicU32>,
    end: mpsc::UnboundedSender<Ending>,
}

async fn connection(stream: TcpStream, peer: SocketAddr, acceptor: Option<TlsAcceptor>, endpoint: SharedEndpoint) {
    let (number, limit) = endpoint.open_connection();
    let (end, endings) = mpsc::unbounded_channel();
    let connection = ServedConnection { number, peer, endpoint, left: limit.map(AtomicU32::new), end };
    // A connection without nodelay, or without the descriptor that a reset needs, is not served.
    let Ok(lever) = stream.set_nodelay(true).and_then(|()| stream.as_fd().try_clone_to_owned()) else { return };
    match acceptor {
        // The client reports a handshake that fails.
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                connection.serve(Box::new(stream), &lever, endings).await;
            }
        }
        None => connection.serve(Box::new(stream), &lever, endings).await,
    }
}

impl ServedConnection {
    async fn serve(self, stream: Box<dyn Stream>, lever: &OwnedFd, mut endings: mpsc::UnboundedReceiver<Ending>) {
        let builder = builder(self.endpoint.protocols());
        let this = Arc::new(self);
        let service = service_fn(move |request| {
            let this = Arc::clone(&this);
            async move { Ok::<_, Infallible>(this.respond(request).await) }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        loop {
            tokio::select! {
                // The client sees how the connection ended.
                _ = connection.as_mut() => return,
                ending = endings.recv() => match ending {
                    Some(Ending::Graceful) => connection.as_mut().graceful_shutdown(),
                    Some(Ending::Reset) => {
                        let _ = rustix::net::sockopt::set_socket_linger(lever, Some(Duration::ZERO));
                        return;
                    }
                    None => return,
                },
            }
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let answer = if request.uri().path().starts_with(admin::PREFIX) {
            admin::answer(&self.endpoint, request).await
        } else {
            self.call(request)
                .await
                .unwrap_or_else(|error| ScriptedAnswer::refusal(400, "bad.request", &error.to_string()))
        };
        if !answer.delay.is_zero() {
            tokio::time::sleep(answer.delay).await;
        }
        match answer.manner {
            Manner::Hang => std::future::pending().await,
            Manner::Reset => {
                let _ = self.end.send(Ending::Reset);
                std::future::pending().await
            }
            Manner::Whole | Manner::CloseMidBody | Manner::Trickle => answer.into_response(),
        }
    }

    async fn call(&self, request: Request<Incoming>) -> io::Result<ScriptedAnswer> {
        let path = request.uri().path().to_owned();
        let corp_id = path.strip_prefix("/v1.0/oauth2/").and_then(|rest| rest.strip_suffix("/token"));
        let Some(corp_id) = corp_id.filter(|corp_id| !corp_id.contains('/')) else {
            return Ok(ScriptedAnswer::refusal(404, "InvalidAction.NotFound", "there is no such API"));
        };
        if request.method() != Method::POST {
            return Ok(ScriptedAnswer::refusal(405, "InvalidAction.Method", "this API is called with POST"));
        }
        let protocol = if request.version() == Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 };
        let body = read(request).await?;
        self.count_down();
        let caller = Caller { connection: self.number, protocol, peer: self.peer };
        Ok(self.endpoint.answer(corp_id, &body, caller))
    }

    fn count_down(&self) {
        let Some(left) = &self.left else { return };
        if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) == Ok(1) {
            let _ = self.end.send(Ending::Graceful);
        }
    }
}

/// A request's body, up to [`MAX_REQUEST`].
async fn read(request: Request<Incoming>) -> io::Result<bytes::Bytes> {
    let body = Limited::new(request.into_body(), MAX_REQUEST);
    body.collect().await.map(http_body_util::Collected::to_bytes).map_err(io::Error::other)
}

fn builder(protocols: Protocols) -> Builder<TokioExecutor> {
    let mut builder = match protocols {
        Protocols::Both => Builder::new(TokioExecutor::new()),
        Protocols::Http1 | Protocols::Http1WithoutAlpn => Builder::new(TokioExecutor::new()).http1_only(),
        Protocols::Http2 => Builder::new(TokioExecutor::new()).http2_only(),
    };
    // Clients that give up on slow answers reset streams, and the sandbox makes slow answers on purpose.
    builder.http2().max_pending_accept_reset_streams(10_000).max_local_error_reset_streams(10_000);
    builder
}
