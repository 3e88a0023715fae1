//! Reads the body of an answer piece by piece and within limits, because the listening process may not be the daemon.

use std::io::{self, BufRead, Read};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Buf, Bytes, Incoming};
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout};

/// The longest row of a listing, in bytes: 64 sinks with the longest paths.
const MAX_ROW: u64 = 512 << 10;

/// How long and how large an answer may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// How long each piece may take.
    pub(super) piece: Duration,
    /// How long all pieces may take together. Time spent outside of reading does not count.
    pub(super) all: Duration,
    /// How many bytes there may be.
    pub(super) bytes: u64,
}

/// A body as a blocking reader.
pub(super) struct BodyReader<'a> {
    runtime: &'a Runtime,
    body: Incoming,
    chunk: Bytes,
    /// What is left of the limits.
    bounds: Bounds,
}

impl<'a> BodyReader<'a> {
    pub(super) fn new(runtime: &'a Runtime, body: Incoming, bounds: Bounds) -> Self {
        Self { runtime, body, chunk: Bytes::new(), bounds }
    }

    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let (limit, began) = (self.bounds.piece.min(self.bounds.all), Instant::now());
        let frame = self.runtime.block_on(async { timeout(limit, self.body.frame()).await });
        self.bounds.all = self.bounds.all.saturating_sub(began.elapsed());
        let frame = frame.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the answer does not go on"))?;
        let Some(frame) = frame else { return Ok(None) };
        let chunk = frame.map_err(io::Error::other)?.into_data().unwrap_or_default();
        self.bounds.bytes = (self.bounds.bytes.checked_sub(chunk.len() as u64))
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "the answer is too long to be one of ours"))?;
        Ok(Some(chunk))
    }
}

impl Read for BodyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.next()? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// The next line, without its end; `None` at the end.
pub(super) fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<()>> {
    line.clear();
    reader.by_ref().take(MAX_ROW).read_until(b'\n', line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(())),
        Some(_) if line.len() as u64 + 1 == MAX_ROW => {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, "a row is too long to be one of ours"))
        }
        Some(last) => {
            line.push(last);
            Ok(Some(()))
        }
    }
}
