//! The commands' end of the control socket. Each call blocks until its answer has arrived.

mod body;
mod error;

use std::io::{self, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::runtime::Runtime;

use super::protocol::{DaemonStatus, ErrorBody, ReloadRequest, ReloadVerdict, TenantRow};
use crate::domain::{TenantId, TenantState};
use body::{BodyReader, Bounds, next_line};
use error::{busy, other, silent};

pub use error::ControlError;

/// How long the daemon may be silent. It answers in milliseconds, or it hangs.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a reload may take: a million tenants are read, checked and applied.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// How much of an answer is buffered unread, in bytes. Its head has to fit.
const MAX_BUFFER: usize = 256 << 10;

/// How long to wait for a place in the queue of connections to be accepted.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Limits of an answer that is read whole: a status of 10,000 apps, or a report of as many problems.
const WHOLE: Bounds = Bounds { piece: TIMEOUT, all: TIMEOUT, bytes: 32 << 20 };

/// The most rows of a listing: four times what is supported.
const MAX_ROWS: usize = 4_000_000;

/// Limits of a listing that is read row by row, and may be kept in memory. A million tenants have 420 MB.
const ROWS: Bounds = Bounds { piece: TIMEOUT, all: Duration::from_secs(120), bytes: 1 << 30 };

/// Limits of a listing that is passed on piece by piece.
const COPY: Bounds = Bounds { bytes: 4 << 30, ..ROWS };

/// A connection to the daemon. Answers are bounded in length and in time. The listening process must belong to root, to the caller,
/// or to the owner of the socket's directory or its group (where that may write), who could replace the socket anyway.
#[derive(Debug)]
pub struct ControlClient {
    socket: PathBuf,
    /// The daemon's process, if it is visible from here.
    pid: Option<i32>,
    // Declared before the runtime that it lives on.
    requests: SendRequest<Full<Bytes>>,
    /// Runs on the caller's thread: the connection makes progress while a call waits.
    runtime: Runtime,
}

impl ControlClient {
    /// Connects to the daemon that listens on `socket`.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn connect(socket: &Path) -> Result<Self, ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|e| other(socket, e))?;
        let (requests, pid) = runtime.block_on(async {
            let stream = connect(socket).await?;
            let peer = stream.peer_cred().map_err(|e| other(socket, e))?;
            if !is_trusted(socket, peer) {
                return Err(ControlError::Impostor { socket: socket.to_owned(), uid: peer.uid() });
            }
            let handshake = hyper::client::conn::http1::Builder::new()
                .max_buf_size(MAX_BUFFER)
                .handshake(TokioIo::new(stream))
                .await;
            let (requests, connection) = handshake.map_err(|e| other(socket, e))?;
            // It ends with the runtime. The requests return its errors.
            tokio::spawn(connection);
            Ok((requests, peer.pid()))
        })?;
        Ok(Self { socket: socket.to_owned(), pid, requests, runtime })
    }

    /// The summary.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn status(&mut self) -> Result<DaemonStatus, ControlError> {
        let response = self.request(Method::GET, "/v1/status", Vec::new(), TIMEOUT)?;
        self.json(response)
    }

    /// One tenant; `None` if the daemon has no such tenant.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn tenant(&mut self, id: &TenantId) -> Result<Option<TenantRow>, ControlError> {
        let response = self.send(Method::GET, &format!("/v1/tenants/{id}"), Vec::new(), TIMEOUT)?;
        if response.status() == StatusCode::NOT_FOUND {
            return self.text(response).map(|_| None);
        }
        let response = self.successful(response)?;
        self.json(response).map(Some)
    }

    /// The tenants in any of `states` (all if it is empty), in the order of their ids, until `each` breaks. After a break the
    /// connection cannot be used any more.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn tenants(
        &mut self,
        states: &[TenantState],
        mut each: impl FnMut(TenantRow) -> ControlFlow<()>,
    ) -> Result<(), ControlError> {
        let response = self.request(Method::GET, &listing(states), Vec::new(), TIMEOUT)?;
        let socket = self.socket.clone();
        // One row a line, as the server promises: much faster than parsing the stream as one value.
        let mut reader = BufReader::with_capacity(1 << 16, self.reader(response, ROWS));
        let (mut line, mut rows, mut whole) = (Vec::new(), 0, false);
        while next_line(&mut reader, &mut line).map_err(|e| other(&socket, e))?.is_some() {
            match line.strip_suffix(b",").unwrap_or(&line) {
                b"{\"tenants\":[" => {}
                b"]}" => whole = true,
                _ if rows == MAX_ROWS => return Err(other(&socket, "the list of tenants does not end")),
                row => {
                    rows += 1;
                    if each(serde_json::from_slice(row).map_err(|e| other(&socket, e))?).is_break() {
                        return Ok(());
                    }
                }
            }
        }
        if whole { Ok(()) } else { Err(other(&socket, "the list of tenants breaks off")) }
    }

    /// Copies the text of `GET /v1/tenants`, `{"tenants":[…]}`, to `out` piece by piece, without its first byte, so that it can
    /// become part of a larger object.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn copy_tenants(&mut self, out: &mut dyn Write) -> Result<(), ControlError> {
        let response = self.request(Method::GET, &listing(&[]), Vec::new(), TIMEOUT)?;
        let socket = self.socket.clone();
        let mut reader = self.reader(response, COPY);
        let mut chunk = vec![0; 1 << 16];
        reader.read_exact(&mut chunk[..1]).map_err(|e| other(&socket, e))?;
        loop {
            match reader.read(&mut chunk).map_err(|e| other(&socket, e))? {
                0 => return Ok(()),
                length => out.write_all(&chunk[..length]).map_err(ControlError::Output)?,
            }
        }
    }

    /// Has the daemon read and apply its config now, and waits for the outcome.
    ///
    /// # Errors
    /// See [`ControlError`]. A rejected config is no error: see [`ReloadVerdict::applied`].
    pub fn reload(&mut self, request: ReloadRequest) -> Result<ReloadVerdict, ControlError> {
        // A daemon that does not answer at all is detected within seconds.
        self.status()?;
        let body = serde_json::to_vec(&request).map_err(|e| other(&self.socket, e))?;
        let response = self.request(Method::POST, "/v1/reload", body, RELOAD_TIMEOUT)?;
        self.json(response)
    }

    fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, ControlError> {
        let response = self.send(method, path, body, timeout)?;
        self.successful(response)
    }

    fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, ControlError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "corptokend")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| other(&self.socket, e))?;
        let answer = self.requests.send_request(request);
        let answer = self.runtime.block_on(async { tokio::time::timeout(timeout, answer).await });
        answer.map_err(|_| silent(&self.socket, self.pid, timeout))?.map_err(|e| {
            if was_closed(&e) {
                busy(&self.socket, "it ended the connection without an answer; it has too many, or it is stopping")
            } else {
                other(&self.socket, e)
            }
        })
    }

    fn successful(&mut self, response: Response<Incoming>) -> Result<Response<Incoming>, ControlError> {
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::FORBIDDEN => Err(ControlError::NoPermission(self.socket.clone())),
            status => {
                let text = self.text(response)?;
                let error =
                    serde_json::from_slice(&text).map_or_else(|_| status.to_string(), |body: ErrorBody| body.error);
                Err(match status {
                    StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => busy(&self.socket, error),
                    _ => other(&self.socket, error),
                })
            }
        }
    }

    fn text(&mut self, response: Response<Incoming>) -> Result<Vec<u8>, ControlError> {
        let (socket, pid) = (self.socket.clone(), self.pid);
        let mut text = Vec::new();
        match self.reader(response, WHOLE).read_to_end(&mut text) {
            Ok(_) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(silent(&socket, pid, TIMEOUT)),
            Err(error) => Err(other(&socket, error)),
        }
    }

    fn json<T: DeserializeOwned>(&mut self, response: Response<Incoming>) -> Result<T, ControlError> {
        let text = self.text(response)?;
        serde_json::from_slice(&text).map_err(|e| other(&self.socket, e))
    }

    fn reader(&mut self, response: Response<Incoming>, bounds: Bounds) -> BodyReader<'_> {
        BodyReader::new(&self.runtime, response.into_body(), bounds)
    }
}

/// Connects, waiting for room in the queue of connections to be accepted.
async fn connect(socket: &Path) -> Result<UnixStream, ControlError> {
    let deadline = tokio::time::Instant::now() + CONNECT_TIMEOUT;
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            Err(e) => match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    return Err(ControlError::NoDaemon(socket.to_owned()));
                }
                io::ErrorKind::PermissionDenied => return Err(ControlError::NoPermission(socket.to_owned())),
                io::ErrorKind::WouldBlock if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                io::ErrorKind::WouldBlock => {
                    return Err(busy(socket, "it does not accept connections, and too many wait; is it stopped?"));
                }
                _ => return Err(other(socket, e)),
            },
        }
    }
}

/// Whether the peer closed the connection without an answer.
fn was_closed(error: &hyper::Error) -> bool {
    let kind = std::error::Error::source(error).and_then(|e| e.downcast_ref::<io::Error>()).map(io::Error::kind);
    let broke = matches!(kind, Some(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset));
    broke || error.is_incomplete_message() || error.is_canceled() || error.is_closed()
}

/// Whether the listening process can be trusted to be the daemon: whoever may write to the directory can replace the socket.
fn is_trusted(socket: &Path, peer: UCred) -> bool {
    let directory = socket.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let may_write =
        |meta: std::fs::Metadata| meta.uid() == peer.uid() || (meta.gid() == peer.gid() && meta.mode() & 0o020 != 0);
    let is_ours = [0, rustix::process::geteuid().as_raw()].contains(&peer.uid());
    is_ours || std::fs::metadata(directory).is_ok_and(may_write)
}

fn listing(states: &[TenantState]) -> String {
    if states.is_empty() {
        return "/v1/tenants".into();
    }
    let names: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    format!("/v1/tenants?state={}", names.join(","))
}
