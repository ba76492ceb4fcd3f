//! A connection that ends when its other side takes nothing for too long. Whoever reads slowly may do so; whoever has stopped reading would
//! hold its answer, its buffers and its place for good.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A stream whose writes fail once none of them was taken for a time.
#[derive(Debug)]
pub(super) struct Stall<S> {
    stream: S,
    wait: Duration,
    /// Since a write waits: when it fails.
    fails: Option<Pin<Box<Sleep>>>,
}

impl<S> Stall<S> {
    pub(super) const fn new(stream: S, wait: Duration) -> Self {
        Self { stream, wait, fails: None }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.fails = None;
            return polled;
        }
        let wait = self.wait;
        let fails = self.fails.get_or_insert_with(|| Box::pin(sleep(wait)));
        if fails.as_mut().poll(context).is_ready() {
            // Asked once more, it would have its time again.
            fails.as_mut().reset(Instant::now());
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.judge(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn who_takes_nothing_is_cut_and_who_reads_slowly_is_not() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Stall::new(near, Duration::from_millis(50));
        let written = tokio::spawn(async move {
            let written = near.write_all(&[7; 640]).await;
            (near, written)
        });
        // Slower than the wait in all, never in one piece.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            far.read_exact(&mut [0; 64]).await.unwrap();
        }
        let (mut near, done) = written.await.unwrap();
        done.unwrap();
        near.write_all(&[7; 64]).await.unwrap();
        assert_eq!(near.write_all(&[7]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
