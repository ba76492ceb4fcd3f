//! The messages of one WebSocket over a stream, for a single task: read by tungstenite, written from where they are. Thousands of them are idle at a time, so that what one
//! holds meanwhile is counted: no copy of what was sent, no buffer for it, and one small buffer for what comes. What messages mean is not known here.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

/// What is read at once, in bytes: a whole message of most games, or a player's inputs. Longer ones come in pieces. It is allocated for each WebSocket, and is most of what an
/// idle one takes.
const READ_BUFFER_BYTES: usize = 512;
/// The answers to pings and to a close that may wait, in bytes: each has 131 at most.
const ANSWERS_BYTES_MAX: usize = 4 << 10;
/// A frame's header at its longest without a mask, which a host's frames have not (RFC 6455, section 5.2).
const HEADER_BYTES_MAX: usize = 10;
/// The header of a client's frame, without the bytes that longer lengths have: two bytes and the mask (RFC 6455, section 5.2).
const CLIENT_HEADER_BYTES: usize = 2 + 4;

/// A WebSocket, the host's side.
#[derive(Debug)]
pub(super) struct Line<S> {
    stream: S,
    context: WebSocketContext,
    /// The frame that is being written.
    frame: Option<Frame>,
    /// Bytes read from the stream.
    read_bytes: u64,
}

/// One frame of the host's.
#[derive(Debug)]
struct Frame {
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    payload: Bytes,
    /// Bytes of both that are written.
    written: usize,
}

impl Frame {
    fn new(opcode: OpCode, payload: Bytes) -> Self {
        let header = FrameHeader { opcode, ..FrameHeader::default() };
        let mut bytes = [0; HEADER_BYTES_MAX];
        let mut rest = bytes.as_mut_slice();
        // The array has room for the longest.
        let _fits = header.format(payload.len() as u64, &mut rest);
        let header_len = HEADER_BYTES_MAX - rest.len();
        Self { header: bytes, header_len, payload, written: 0 }
    }

    /// What is still to be written.
    fn rest(&self) -> (&[u8], &[u8]) {
        let header = self.header.get(..self.header_len).and_then(|header| header.get(self.written..));
        let payload = self.payload.get(self.written.saturating_sub(self.header_len)..);
        (header.unwrap_or_default(), payload.unwrap_or_default())
    }
}

/// What a host says.
#[derive(Debug)]
pub(super) enum Say {
    /// A text message: UTF-8.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
    /// A ping of the WebSocket's own.
    Ping,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// A WebSocket over a stream whose upgrade is over, for messages of so many bytes at most from the client.
    pub(super) fn new(stream: S, message_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max))
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(ANSWERS_BYTES_MAX);
        Self { stream, context: WebSocketContext::new(Role::Server, Some(config)), frame: None, read_bytes: 0 }
    }

    /// The stream beneath.
    pub(super) const fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The next message; none at the end. Pings and closes are answered meanwhile.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        let Self { stream, context: websocket, frame, read_bytes, .. } = self;
        let mut io = Io { stream, context, has_frame: frame.is_some(), read_bytes };
        match websocket.read(&mut io) {
            Ok(message) => Poll::Ready(Some(Ok(message))),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    /// Gives back the buffer that the first message made larger than others need, if that message is all that came.
    pub(super) fn forget_first(&mut self, message_bytes: usize) {
        let length_bytes = match message_bytes {
            0..126 => 0,
            126..0x1_0000 => 2,
            _ => 8,
        };
        if self.read_bytes == (CLIENT_HEADER_BYTES + length_bytes + message_bytes) as u64 {
            self.context = WebSocketContext::new(Role::Server, Some(*self.context.get_config()));
        }
    }

    /// Begins to say something, once all before is written. [`poll_written`](Self::poll_written) says when.
    ///
    /// # Errors
    /// When the WebSocket closes.
    pub(super) fn say(&mut self, say: Say) -> Result<(), Error> {
        if !self.context.can_write() {
            return Err(Error::AlreadyClosed);
        }
        let (opcode, payload) = match say {
            Say::Text(text) => (OpCode::Data(Data::Text), text),
            Say::Binary(bytes) => (OpCode::Data(Data::Binary), bytes),
            Say::Ping => (OpCode::Control(Control::Ping), Bytes::new()),
        };
        self.frame = Some(Frame::new(opcode, payload));
        Ok(())
    }

    /// Ready when everything said is with the system, answers to pings too.
    pub(super) fn poll_written(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // A frame that is begun goes on before anything else, and an answer that is begun before a frame.
        if self.frame.as_ref().is_some_and(|frame| frame.written == 0) {
            ready!(self.poll_answered(context))?;
        }
        while let Some(frame) = &mut self.frame {
            let (header, payload) = frame.rest();
            if header.is_empty() && payload.is_empty() {
                self.frame = None;
                break;
            }
            let parts = [IoSlice::new(header), IoSlice::new(payload)];
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, &parts))?;
            if written == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            frame.written = frame.written.saturating_add(written);
        }
        self.poll_answered(context)
    }

    /// Says that nothing more is said; ready when that is with the system.
    pub(super) fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.frame.is_some() {
            ready!(self.poll_written(context))?;
        }
        let Self { stream, context: websocket, read_bytes, .. } = self;
        let mut io = Io { stream, context, has_frame: false, read_bytes };
        // The first time it says so, then it writes what is left of that.
        written(websocket.close(&mut io, None))
    }

    fn poll_answered(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self { stream, context: websocket, frame, read_bytes, .. } = self;
        let has_frame = frame.as_ref().is_some_and(|frame| frame.written > 0);
        written(websocket.flush(&mut Io { stream, context, has_frame, read_bytes }))
    }
}

fn written(flushed: Result<(), Error>) -> Poll<Result<(), Error>> {
    match flushed {
        // After a close of the client's this is how it ends.
        Ok(()) | Err(Error::ConnectionClosed) => Poll::Ready(Ok(())),
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        Err(error) => Poll::Ready(Err(error)),
    }
}

/// The stream as tungstenite wants it: what would wait says so.
struct Io<'a, 'b, S> {
    stream: &'a mut S,
    context: &'a mut Context<'b>,
    /// A frame is begun: nothing else may be written before it ends.
    has_frame: bool,
    read_bytes: &'a mut u64,
}

impl<S: AsyncRead + Unpin> Read for Io<'_, '_, S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(into);
        match Pin::new(&mut *self.stream).poll_read(self.context, &mut buffer) {
            Poll::Ready(read) => {
                read?;
                let bytes = buffer.filled().len();
                *self.read_bytes = self.read_bytes.saturating_add(bytes as u64);
                Ok(bytes)
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S: AsyncWrite + Unpin> Write for Io<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_frame {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match Pin::new(&mut *self.stream).poll_write(self.context, bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match Pin::new(&mut *self.stream).poll_flush(self.context) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::{FutureExt, SinkExt, StreamExt};
    use tokio::io::DuplexStream;
    use tokio_tungstenite::WebSocketStream;

    use super::*;

    const MESSAGE_BYTES_MAX: usize = 1 << 10;

    async fn pair(pipe_bytes: usize) -> (Line<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (near, far) = tokio::io::duplex(pipe_bytes);
        (Line::new(near, MESSAGE_BYTES_MAX), WebSocketStream::from_raw_socket(far, Role::Client, None).await)
    }

    async fn read(line: &mut Line<DuplexStream>) -> Option<Result<Message, Error>> {
        poll_fn(|context| line.poll_read(context)).await
    }

    #[tokio::test]
    async fn messages_of_every_length_go_both_ways() {
        let (mut line, mut client) = pair(1 << 20).await;
        for bytes in [0, 1, 125, 126, 500, 513, MESSAGE_BYTES_MAX, 65_535, 65_536, 100_000] {
            let text = "x".repeat(bytes);
            line.say(Say::Text(text.clone().into())).unwrap();
            poll_fn(|context| line.poll_written(context)).await.unwrap();
            assert_eq!(client.next().await.unwrap().unwrap(), Message::text(text.clone()));
            if bytes <= MESSAGE_BYTES_MAX {
                client.send(Message::text(text.clone())).await.unwrap();
                client.send(Message::binary(text.clone())).await.unwrap();
                assert_eq!(read(&mut line).await.unwrap().unwrap(), Message::text(text.clone()));
                assert_eq!(read(&mut line).await.unwrap().unwrap(), Message::binary(text));
            }
        }
        client.send(Message::text("x".repeat(MESSAGE_BYTES_MAX + 1))).await.unwrap();
        assert!(matches!(read(&mut line).await, Some(Err(Error::Capacity(_)))));
    }

    #[tokio::test]
    async fn an_answer_never_comes_into_the_middle_of_a_message() {
        for pipe_bytes in [1, 3, 64] {
            let (mut line, client) = pair(pipe_bytes).await;
            let (mut to_line, mut from_line) = client.split();
            let pings = tokio::spawn(async move {
                for number in 0..20_u8 {
                    to_line.send(Message::Ping(vec![number].into())).await.unwrap();
                }
                to_line
            });
            let said = tokio::spawn(async move {
                for number in 0..20_usize {
                    line.say(Say::Text("x".repeat(number * 7).into())).unwrap();
                    poll_fn(|context| {
                        // As a session does: it reads while it writes.
                        while line.poll_read(context).is_ready() {}
                        line.poll_written(context)
                    })
                    .await
                    .unwrap();
                }
                poll_fn(|context| line.poll_close(context)).await.unwrap();
                line
            });
            let (mut texts, mut last_pong) = (0, None);
            while let Some(message) = from_line.next().await {
                match message.unwrap() {
                    Message::Text(text) => {
                        assert_eq!(text.len(), texts * 7);
                        texts += 1;
                    }
                    Message::Pong(number) => {
                        assert!(last_pong.is_none_or(|last| last < number[0]), "in order");
                        last_pong = Some(number[0]);
                    }
                    Message::Close(_) => break,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(texts, 20);
            drop(said.await.unwrap());
            drop(pings.now_or_never());
        }
    }

    #[tokio::test]
    async fn the_buffer_is_given_back_only_if_nothing_is_in_it() {
        for (ping, length) in [(false, 100), (false, 900), (true, 900)] {
            let (mut line, mut client) = pair(1 << 20).await;
            let hello = "h".repeat(length);
            client.send(Message::text(hello.clone())).await.unwrap();
            if ping {
                client.send(Message::text("at once")).await.unwrap();
            }
            assert_eq!(read(&mut line).await.unwrap().unwrap(), Message::text(hello));
            line.forget_first(length);
            client.send(Message::text("later")).await.unwrap();
            if ping {
                assert_eq!(read(&mut line).await.unwrap().unwrap(), Message::text("at once"));
            }
            assert_eq!(read(&mut line).await.unwrap().unwrap(), Message::text("later"));
        }
    }

    #[tokio::test]
    async fn who_closes_is_answered_and_hears_nothing_more() {
        let (mut line, mut client) = pair(1 << 10).await;
        client.close(None).await.unwrap();
        assert!(matches!(read(&mut line).await, Some(Ok(Message::Close(None)))));
        assert!(line.say(Say::Ping).is_err());
        poll_fn(|context| line.poll_close(context)).await.unwrap();
        assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
    }
}
