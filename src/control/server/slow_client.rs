//! Ends a connection whose client does not read its answer. hyper limits the time that a request takes to arrive; this limits
//! the time that an answer takes to be read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A client that reads less than [`MIN_READ`] bytes of an answer within this time is disconnected. It is long enough for
/// somebody who looks at the first page of `status --json | less`, and nobody else waits for that.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// A client must read so many bytes in each [`WINDOW`], unless fewer are left.
const MIN_READ: usize = 64 << 10;

/// A stream that fails with [`io::ErrorKind::TimedOut`] if the peer does not read what is written.
pub(super) struct SlowClientGuard<S> {
    stream: S,
    window: Duration,
    /// Runs while the peer is behind.
    behind: Option<Behind>,
}

/// A peer that did not take everything at once.
struct Behind {
    deadline: Pin<Box<Sleep>>,
    /// Bytes read since.
    read: usize,
}

impl<S> SlowClientGuard<S> {
    pub(super) fn new(stream: S, window: Duration) -> Self {
        Self { stream, window, behind: None }
    }

    fn check(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(length)) => {
                if let Some(behind) = &mut self.behind {
                    behind.read += length;
                    if behind.read >= MIN_READ {
                        self.behind = None;
                    }
                }
                Poll::Ready(Ok(length))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let window = self.window;
                let behind = self.behind.get_or_insert_with(|| Behind { deadline: Box::pin(sleep(window)), read: 0 });
                ready!(behind.deadline.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read its answer")))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SlowClientGuard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SlowClientGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.check(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.check(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called once an answer is written whole, so the next one has a full window.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.behind = None;
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
        let mut guarded = SlowClientGuard::new(ours, SHORT);
        let answer = vec![0; MUCH];
        let write = async { guarded.write_all(&answer).await };
        tokio::select! {
            written = write => written,
            () = async { reader.await; std::future::pending().await } => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_disconnected() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = write_to(std::future::pending(), ours).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_reads_too_little_is_disconnected() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let drip = async move {
            // Far longer than a window.
            for _ in 0..200 {
                theirs.read_exact(&mut [0; 16]).await.unwrap();
                tokio::time::sleep(SHORT / 10).await;
            }
        };
        let error = write_to(drip, ours).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_slow_client_gets_the_whole_answer() {
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
