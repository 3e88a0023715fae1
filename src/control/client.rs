//! The commands' end of the control socket: each call blocks until its answer is there.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Buf, Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::protocol::{ErrorBody, ReloadRequest, State, Status, TenantRow, Verdict};
use crate::domain::TenantId;

/// How long the daemon may be silent. It answers in milliseconds, or hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a reload may take: a million tenants are read, checked and applied.
const RELOAD_PATIENCE: Duration = Duration::from_secs(120);

/// Why the daemon did not answer. Commands give the first two exit codes of their own.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no daemon listens on {}; is it running? (`systemctl status corptokend`)", .0.display())]
    NoDaemon(PathBuf),
    /// We may not ask.
    #[error(
        "no permission for {}; ask as root or as a member of the socket's group (corptokend-admin)", .0.display()
    )]
    NoPermission(PathBuf),
    /// Somebody listens, but the answer is not what it should be.
    #[error("the daemon on {} gives no proper answer: {reason}", .socket.display())]
    Other {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// What the daemon says could not be passed on.
    #[error("cannot write the daemon's answer: {0}")]
    Output(io::Error),
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    // Declared before the runtime that it lives on.
    requests: SendRequest<Full<Bytes>>,
    /// Its one thread is the caller's: the connection moves while a call waits.
    runtime: Runtime,
}

impl Client {
    /// Connects to the daemon that listens on `socket`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDaemon(socket.to_owned()),
            io::ErrorKind::PermissionDenied => ClientError::NoPermission(socket.to_owned()),
            _ => other(socket, e),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|e| other(socket, e))?;
        let requests = runtime.block_on(async {
            let stream = tokio::net::UnixStream::connect(socket).await.map_err(failed)?;
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (requests, connection) = handshake.map_err(|e| other(socket, e))?;
            // It ends with the runtime; its errors come out of the requests.
            tokio::spawn(connection);
            Ok(requests)
        })?;
        Ok(Self { socket: socket.to_owned(), requests, runtime })
    }

    /// The summary.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn status(&mut self) -> Result<Status, ClientError> {
        let response = self.request(Method::GET, "/v1/status", Vec::new(), PATIENCE)?;
        self.json(response)
    }

    /// One tenant; `None` when the daemon has no such tenant.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn tenant(&mut self, id: &TenantId) -> Result<Option<TenantRow>, ClientError> {
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
    /// See [`ClientError`].
    pub fn tenants(
        &mut self,
        states: &[State],
        mut each: impl FnMut(TenantRow) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let response = self.request(Method::GET, &listing(states), Vec::new(), PATIENCE)?;
        let socket = self.socket.clone();
        let mut whole = false;
        // One row a line, as the server promises: much faster than to parse a stream as one value.
        for line in BufReader::with_capacity(1 << 16, self.reader(response)).lines() {
            let line = line.map_err(|e| other(&socket, e))?;
            let row = line.strip_suffix(',').unwrap_or(&line);
            whole = row == "]}";
            if row.starts_with("{\"tenant\":") {
                let row = serde_json::from_str(row).map_err(|e| other(&socket, e))?;
                if each(row).is_break() {
                    return Ok(());
                }
            }
        }
        if whole { Ok(()) } else { Err(other(&socket, "the list of tenants breaks off")) }
    }

    /// The text of `GET /v1/tenants`, `{"tenants":[…]}`, copied to `out` as it comes, without its first byte: so that
    /// it can become part of a larger object.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn copy_tenants(&mut self, out: &mut dyn Write) -> Result<(), ClientError> {
        let response = self.request(Method::GET, &listing(&[]), Vec::new(), PATIENCE)?;
        let socket = self.socket.clone();
        let mut reader = self.reader(response);
        let mut chunk = vec![0; 1 << 16];
        reader.read_exact(&mut chunk[..1]).map_err(|e| other(&socket, e))?;
        loop {
            match reader.read(&mut chunk).map_err(|e| other(&socket, e))? {
                0 => return Ok(()),
                length => out.write_all(&chunk[..length]).map_err(ClientError::Output)?,
            }
        }
    }

    /// Has the config read and applied now, and waits for what becomes of it.
    ///
    /// # Errors
    /// See [`ClientError`]. A rejected config is none: [`Verdict::applied`] tells.
    pub fn reload(&mut self, request: ReloadRequest) -> Result<Verdict, ClientError> {
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
    ) -> Result<Response<Incoming>, ClientError> {
        let response = self.send(method, path, body, patience)?;
        self.successful(response)
    }

    fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "corptokend")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| other(&self.socket, e))?;
        let answer = self.requests.send_request(request);
        let answer = self.runtime.block_on(async { tokio::time::timeout(patience, answer).await });
        answer.map_err(|_| silent(&self.socket, patience))?.map_err(|e| other(&self.socket, e))
    }

    fn successful(&mut self, response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::FORBIDDEN => Err(ClientError::NoPermission(self.socket.clone())),
            status => {
                let text = self.text(response)?;
                let error =
                    serde_json::from_slice(&text).map_or_else(|_| status.to_string(), |body: ErrorBody| body.error);
                Err(other(&self.socket, error))
            }
        }
    }

    fn text(&mut self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = response.into_body().collect();
        let collected = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, body).await });
        let collected = collected.map_err(|_| silent(&self.socket, PATIENCE))?;
        Ok(collected.map_err(|e| other(&self.socket, e))?.to_bytes())
    }

    fn json<T: DeserializeOwned>(&mut self, response: Response<Incoming>) -> Result<T, ClientError> {
        let text = self.text(response)?;
        serde_json::from_slice(&text).map_err(|e| other(&self.socket, e))
    }

    fn reader(&mut self, response: Response<Incoming>) -> BodyReader<'_> {
        BodyReader { runtime: &self.runtime, body: response.into_body(), chunk: Bytes::new() }
    }
}

fn listing(states: &[State]) -> String {
    if states.is_empty() {
        return "/v1/tenants".into();
    }
    let names: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    format!("/v1/tenants?state={}", names.join(","))
}

fn other(socket: &Path, reason: impl ToString) -> ClientError {
    ClientError::Other { socket: socket.to_owned(), reason: reason.to_string() }
}

fn silent(socket: &Path, patience: Duration) -> ClientError {
    other(socket, format!("it said nothing for {} s", patience.as_secs()))
}

/// A body, read as it comes.
struct BodyReader<'a> {
    runtime: &'a Runtime,
    body: Incoming,
    chunk: Bytes,
}

impl Read for BodyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let frame = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.body.frame()).await });
            let frame = frame.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the answer does not go on"))?;
            let Some(frame) = frame else { return Ok(0) };
            self.chunk = frame.map_err(io::Error::other)?.into_data().unwrap_or_default();
        }
        let length = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
