//! The commands' end of the control socket: each call blocks until its answer is there.

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

use super::protocol::{DaemonStatus, ErrorBody, ReloadRequest, ReloadVerdict, State, TenantRow};
use crate::domain::TenantId;
use body::{BodyReader, Bounds, next_line};
use error::{busy, other, silent};

pub use error::ControlError;

/// How long the daemon may be silent. It answers in milliseconds, or hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a reload may take: a million tenants are read, checked and applied.
const RELOAD_PATIENCE: Duration = Duration::from_secs(120);

/// The most of an answer that waits to be read, in bytes; its head has to fit.
const MAX_BUFFER: usize = 256 << 10;

/// How long to wait for a place among those who wait to be let in.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// What is read as a whole: a status of 10,000 apps, or a report of as many problems.
const ANSWER: Bounds = Bounds { piece: PATIENCE, all: PATIENCE, bytes: 32 << 20 };

/// The most rows of a listing that are taken: four times what is supported.
const MAX_ROWS: usize = 4_000_000;

/// What is read row by row, and may be held. A listing of a million tenants has 420 MB.
const ROWS: Bounds = Bounds { piece: PATIENCE, all: Duration::from_secs(120), bytes: 1 << 30 };

/// What is passed on as it comes.
const COPY: Bounds = Bounds { bytes: 4 << 30, ..ROWS };

/// A connection to the daemon. What comes over it is bounded in length and in time, and whoever listens must be root, the
/// caller, or the owner of the socket's directory or of its group (where that may write), who could take the socket's place
/// anyway.
#[derive(Debug)]
pub struct ControlClient {
    socket: PathBuf,
    /// The daemon's process, where it is to be seen from here.
    pid: Option<i32>,
    // Declared before the runtime that it lives on.
    requests: SendRequest<Full<Bytes>>,
    /// Its one thread is the caller's: the connection moves while a call waits.
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
            let stream = connected(socket).await?;
            let peer = stream.peer_cred().map_err(|e| other(socket, e))?;
            if !is_believed(socket, peer) {
                return Err(ControlError::Impostor { socket: socket.to_owned(), uid: peer.uid() });
            }
            let handshake = hyper::client::conn::http1::Builder::new()
                .max_buf_size(MAX_BUFFER)
                .handshake(TokioIo::new(stream))
                .await;
            let (requests, connection) = handshake.map_err(|e| other(socket, e))?;
            // It ends with the runtime; its errors come out of the requests.
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
        let response = self.request(Method::GET, "/v1/status", Vec::new(), PATIENCE)?;
        self.json(response)
    }

    /// One tenant; `None` when the daemon has no such tenant.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn tenant(&mut self, id: &TenantId) -> Result<Option<TenantRow>, ControlError> {
        let response = self.send(Method::GET, &format!("/v1/tenants/{id}"), Vec::new(), PATIENCE)?;
        if response.status() == StatusCode::NOT_FOUND {
            return self.text(response).map(|_| None);
        }
        let response = self.successful(response)?;
        self.json(response).map(Some)
    }

    /// The tenants in any of `states` (all, when empty), in the order of their ids, until `each` breaks. After a break
    /// the connection is of no further use.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn tenants(
        &mut self,
        states: &[State],
        mut each: impl FnMut(TenantRow) -> ControlFlow<()>,
    ) -> Result<(), ControlError> {
        let response = self.request(Method::GET, &listing(states), Vec::new(), PATIENCE)?;
        let socket = self.socket.clone();
        // One row a line, as the server promises: much faster than to parse a stream as one value.
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

    /// The text of `GET /v1/tenants`, `{"tenants":[…]}`, copied to `out` as it comes, without its first byte: so that
    /// it can become part of a larger object.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn copy_tenants(&mut self, out: &mut dyn Write) -> Result<(), ControlError> {
        let response = self.request(Method::GET, &listing(&[]), Vec::new(), PATIENCE)?;
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

    /// Has the config read and applied now, and waits for what becomes of it.
    ///
    /// # Errors
    /// See [`ControlError`]. A rejected config is none: [`ReloadVerdict::applied`] tells.
    pub fn reload(&mut self, request: ReloadRequest) -> Result<ReloadVerdict, ControlError> {
        // A daemon that does not answer at all is found out in seconds.
        self.status()?;
        let body = serde_json::to_vec(&request).map_err(|e| other(&self.socket, e))?;
        let response = self.request(Method::POST, "/v1/reload", body, RELOAD_PATIENCE)?;
        self.json(response)
    }

    fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<Response<Incoming>, ControlError> {
        let response = self.send(method, path, body, patience)?;
        self.successful(response)
    }

    fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<Response<Incoming>, ControlError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "corptokend")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| other(&self.socket, e))?;
        let answer = self.requests.send_request(request);
        let answer = self.runtime.block_on(async { tokio::time::timeout(patience, answer).await });
        answer.map_err(|_| silent(&self.socket, self.pid, patience))?.map_err(|e| {
            if was_ended(&e) {
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
        match self.reader(response, ANSWER).read_to_end(&mut text) {
            Ok(_) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(silent(&socket, pid, PATIENCE)),
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

/// A connection, once there is room for one among those that wait to be accepted.
async fn connected(socket: &Path) -> Result<UnixStream, ControlError> {
    let deadline = tokio::time::Instant::now() + CONNECT_PATIENCE;
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

/// Whether the other end went away before it said anything.
fn was_ended(error: &hyper::Error) -> bool {
    let kind = std::error::Error::source(error).and_then(|e| e.downcast_ref::<io::Error>()).map(io::Error::kind);
    let broke = matches!(kind, Some(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset));
    broke || error.is_incomplete_message() || error.is_canceled() || error.is_closed()
}

/// Whether who listens may be the daemon: by the directory, since whoever may write there can take the socket's place.
fn is_believed(socket: &Path, peer: UCred) -> bool {
    let directory = socket.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let may_write =
        |meta: std::fs::Metadata| meta.uid() == peer.uid() || (meta.gid() == peer.gid() && meta.mode() & 0o020 != 0);
    let is_ours = [0, rustix::process::geteuid().as_raw()].contains(&peer.uid());
    is_ours || std::fs::metadata(directory).is_ok_and(may_write)
}

fn listing(states: &[State]) -> String {
    if states.is_empty() {
        return "/v1/tenants".into();
    }
    let names: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    format!("/v1/tenants?state={}", names.join(","))
}
