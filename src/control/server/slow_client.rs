//! A stream whose reader must go on reading. hyper limits the time that a request takes to come; this limits the time that
//! an answer takes to go.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A peer that takes less than [`LEAST`] bytes of an answer in this time is left. It is long enough for somebody who looks
/// at the first page of `status --json | less`, and no one else waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// So much must be taken in [`PATIENCE`], unless less is left.
const LEAST: usize = 64 << 10;

/// A stream that fails with [`io::ErrorKind::TimedOut`] when what is written is not taken.
pub(super) struct Patient<S> {
    stream: S,
    patience: Duration,
    /// When it ends, since something first was not taken at once. What was taken since.
    waits: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, waits: None }
    }

    fn judge(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(length)) => {
                if let Some((_, taken)) = &mut self.waits {
                    *taken += length;
                    if *taken >= LEAST {
                        self.waits = None;
                    }
                }
                Poll::Ready(Ok(length))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let (deadline, _) = self.waits.get_or_insert_with(|| (Box::pin(sleep(self.patience)), 0));
                ready!(deadline.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not take its answer")))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called when all that was to be written is: the next answer has all the time again.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waits = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    const SHORT: Duration = Duration::from_millis(200);
    const MUCH: usize = 8 << 20;

    async fn write_to(reader: impl Future<Output = ()>, ours: UnixStream) -> io::Result<()> {
        let mut patient = Patient::new(ours, SHORT);
        let answer = vec![0; MUCH];
        let write = async { patient.write_all(&answer).await };
        tokio::select! {
            written = write => written,
            () = async { reader.await; std::future::pending().await } => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_reader_that_stands_still_is_left() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = write_to(std::future::pending(), ours).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_reader_that_only_drips_is_left() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let drip = async move {
            // Far longer than a reader that stands still is given.
            for _ in 0..200 {
                theirs.read_exact(&mut [0; 16]).await.unwrap();
                tokio::time::sleep(SHORT / 10).await;
            }
        };
        let error = write_to(drip, ours).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_slow_reader_gets_all_of_it() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let slow = async move {
            let mut chunk = vec![0; 256 << 10];
            while theirs.read_exact(&mut chunk).await.is_ok() {
                tokio::time::sleep(SHORT / 20).await;
            }
        };
        write_to(slow, ours).await.unwrap();
    }
}
