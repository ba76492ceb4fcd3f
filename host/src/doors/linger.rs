//! A connection that ends without being reset. Closed with bytes unread, or with bytes still to come, the system resets it: its client's sends fail, and
//! on some systems what it had not read yet is gone, the host's last words among it. So a shutdown stops writing first, then reads and throws away what
//! still comes until the other side closes (RFC 9112, section 9.6). It lies beneath TLS and everything else, so all that shuts its stream down ends like this.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long and how much a connection lingers.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// How long a client may be silent after the host's last words.
    quiet: Duration,
    /// How long it may go on in all.
    all: Duration,
    /// What is read at most. Who sends more does not listen.
    bytes: usize,
}

/// A round trip over the worst of networks, for which a stop of the host waits, too; the longest body at 1 Mbit/s; four bodies at their longest.
const BOUNDS: Bounds = Bounds { quiet: Duration::from_secs(1), all: Duration::from_secs(10), bytes: 4 << 20 };
/// What is read at once, in bytes. It is on the stack.
const READ_BYTES: usize = 8 << 10;

/// A stream whose shutdown waits, within bounds, until the other side has closed.
#[derive(Debug)]
pub(super) struct Linger<S> {
    stream: S,
    bounds: Bounds,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    Lingering(Left),
    Over,
}

/// What is left of the bounds.
#[derive(Debug)]
struct Left {
    ends: Instant,
    quiet: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Bounds {
    fn begin(&self) -> Left {
        Left { ends: Instant::now() + self.all, quiet: Box::pin(sleep(self.quiet)), bytes: self.bytes }
    }
}

impl<S> Linger<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, bounds: BOUNDS, state: State::Open }
    }
}

impl<S: AsyncRead + Unpin> Linger<S> {
    /// Reads and throws away; ready when the other side has closed, or a bound is reached.
    fn poll_discard(stream: &mut S, bounds: Bounds, left: &mut Left, context: &mut Context<'_>) -> Poll<()> {
        let mut buffer = [0; READ_BYTES];
        loop {
            let mut read = ReadBuf::new(&mut buffer);
            match Pin::new(&mut *stream).poll_read(context, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    left.bytes = left.bytes.saturating_sub(read.filled().len());
                    let now = Instant::now();
                    if left.bytes == 0 || now >= left.ends {
                        return Poll::Ready(());
                    }
                    left.quiet.as_mut().reset((now + bounds.quiet).min(left.ends));
                }
                Poll::Ready(Ok(()) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => return left.quiet.as_mut().poll(context),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Linger<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, bounds, state } = &mut *self;
        loop {
            match state {
                State::Open => match Pin::new(&mut *stream).poll_shutdown(context) {
                    Poll::Ready(Ok(())) => *state = State::Lingering(bounds.begin()),
                    Poll::Ready(Err(error)) => {
                        *state = State::Over;
                        return Poll::Ready(Err(error));
                    }
                    Poll::Pending => return Poll::Pending,
                },
                State::Lingering(left) => match Self::poll_discard(stream, *bounds, left, context) {
                    Poll::Ready(()) => *state = State::Over,
                    Poll::Pending => return Poll::Pending,
                },
                State::Over => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    const LONG: Duration = Duration::from_secs(60);

    /// A stream that says its last words and is shut down, and its other side.
    fn closing(bounds: Bounds) -> (JoinHandle<io::Result<()>>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 10);
        let shut = tokio::spawn(async move {
            let mut near = Linger { bounds, ..Linger::new(near) };
            near.write_all(b"bye").await?;
            near.shutdown().await
        });
        (shut, far)
    }

    #[tokio::test]
    async fn the_other_side_says_all_it_wants_and_reads_the_end() {
        let (shut, mut far) = closing(Bounds { quiet: LONG, all: LONG, bytes: 1 << 20 });
        far.write_all(&[7; 100_000]).await.unwrap();
        let mut last_words = String::new();
        far.read_to_string(&mut last_words).await.unwrap();
        assert_eq!(last_words, "bye");
        assert!(!shut.is_finished(), "it lingers until the other side closes");
        drop(far);
        shut.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn nobody_holds_it_open_by_silence_by_time_or_by_bytes() {
        let (shut, far) = closing(Bounds { quiet: Duration::from_millis(20), all: LONG, bytes: 100 });
        shut.await.unwrap().unwrap();
        drop(far);

        let (shut, mut far) = closing(Bounds { quiet: LONG, all: Duration::from_millis(50), bytes: usize::MAX });
        while far.write_all(&[7]).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
        shut.await.unwrap().unwrap();

        let (shut, mut far) = closing(Bounds { quiet: LONG, all: LONG, bytes: 1 << 20 });
        let mut sent = 0;
        while far.write_all(&[7; 1 << 10]).await.is_ok() {
            sent += 1 << 10;
        }
        shut.await.unwrap().unwrap();
        assert!((1 << 20..(1 << 20) + (64 << 10)).contains(&sent), "{sent} bytes");
    }
}
