//! What the host says last is read also by those who go on talking: refusals, goodbyes and answers to bodies that are too long, each to a client that
//! sends a megabyte slowly and reads only then. Closed at once, its connection would be reset under it. With TLS the same is in `tls.rs`.

use std::time::Duration;

use holeshot::doors::gate::{Limit, LimitSetting};
use holeshot_wire::PROTOCOL_VERSION;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::harness::{Host, SOON, run};
use crate::modules_made::{SHORT, Tally, short};
use crate::peer::serves_a_game;

const LONG: &str = "tally-long";
/// What a client sends at a time, and after which pause: a megabyte takes half a second.
const PIECE_BYTES: usize = 16 << 10;
const PAUSE: Duration = Duration::from_millis(8);

/// Sends what it is given in pieces with pauses, then reads until the host closes the connection. All of it must go out, and the end must be no reset.
pub(crate) async fn says_all_then_reads<S>(what: &str, stream: &mut S, bytes: &[u8]) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for (number, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
        let sent =
            timeout(SOON, stream.write_all(piece)).await.unwrap_or_else(|_| panic!("{what}: the host reads nothing"));
        sent.unwrap_or_else(|error| panic!("{what}: after {number} pieces: {error}"));
        // A client on a slow line.
        sleep(PAUSE).await;
    }
    let mut answer = Vec::new();
    let ended = timeout(SOON, stream.read_to_end(&mut answer)).await;
    let ended = ended.unwrap_or_else(|_| panic!("{what}: the host keeps the connection"));
    ended.unwrap_or_else(|error| panic!("{what}: {error}"));
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asks for the WebSocket; the bytes after the answer are the caller's.
pub(crate) async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
}

/// A text message in one frame, masked with zeros (RFC 6455, section 5.2).
pub(crate) fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 127];
    frame.extend((text.len() as u64).to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// A frame of a megabyte.
pub(crate) fn endless() -> Vec<u8> {
    text_frame(&"x".repeat(1 << 20))
}

fn limits(set: &[(Limit, u64)]) -> Vec<LimitSetting> {
    set.iter().map(|(limit, value)| LimitSetting::new(*limit, *value)).collect()
}

#[test]
fn who_goes_on_talking_still_reads_why_the_session_was_refused() {
    run(60, async {
        let modules = [short(), Tally::new(LONG, 100_000).wasm()];
        let host = Host::start_with_modules(&modules, |settings| {
            settings.limits = limits(&[(Limit::AddressSessions, 1)]);
            settings.limits_exempt = vec!["none".into()];
        })
        .await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        let _ada = crate::peer::Peer::enter(&host.join(&room, "Ada").await).await;
        let hello = |ticket: &str| {
            text_frame(&json!({ "type": "hello", "protocol": PROTOCOL_VERSION, "ticket": ticket }).to_string())
        };
        let other = text_frame(&json!({ "type": "hello", "protocol": 99, "ticket": "x" }).to_string());
        let ben = host.join(&room, "Ben").await;
        for (what, first, code) in [
            ("much too long", Vec::new(), "bad_message"),
            ("no hello", text_frame("{}"), "bad_message"),
            ("another protocol", other, "protocol_version"),
            ("one session too many", hello(&ben.ticket), "too_many_sessions"),
        ] {
            let mut stream = TcpStream::connect(host.server().addresses().http).await.unwrap();
            upgrade(&mut stream).await;
            let answer = says_all_then_reads(what, &mut stream, &[first, endless()].concat()).await;
            assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{what}: {answer}");
        }
        host.stop().await;

        let host = Host::start_with_modules(&modules, |_| {}).await;
        let connect = async || {
            let mut stream = TcpStream::connect(host.server().addresses().http).await.unwrap();
            upgrade(&mut stream).await;
            stream
        };
        let answer = says_all_then_reads("a bad ticket", &mut connect().await, &[hello("x"), endless()].concat()).await;
        assert!(answer.contains("\"code\":\"bad_ticket\""), "{answer}");
        // Half a hello; the rest comes when the refusal is there already.
        let mut slow = connect().await;
        let late = [text_frame(&"x".repeat(8_000)), endless()].concat();
        slow.write_all(&late[..100]).await.unwrap();
        let mut refusal = [0; 8];
        timeout(SOON, slow.read_exact(&mut refusal)).await.unwrap().unwrap();
        let answer = says_all_then_reads("too late", &mut slow, &late[100..]).await;
        assert!(answer.contains("\"code\":\"hello_timeout\""), "{answer}");
        serves_a_game(&host).await;
        host.stop().await;
    });
}

#[test]
fn who_goes_on_talking_still_reads_the_goodbye() {
    run(60, async {
        let host = Host::start_with_modules(&[short(), Tally::new(LONG, 100_000).wasm()], |_| {}).await;
        let room = host.open(LONG, &["Ada", "Ben"]).await;
        // Nothing of it is wrong by itself.
        let long = text_frame(&json!({ "type": "ready", "new": "x".repeat(8_000) }).to_string());
        let leave = text_frame(r#"{"type":"leave"}"#);
        for (what, last, code) in [
            ("too long", endless(), "bad_message"),
            ("no JSON", [text_frame("{"), endless()].concat(), "bad_message"),
            ("leaves", [leave, long.repeat(100)].concat(), "left"),
        ] {
            let ticket = host.join(&room, "Ada").await.ticket;
            let hello = json!({ "type": "hello", "protocol": PROTOCOL_VERSION, "ticket": ticket }).to_string();
            let mut stream = TcpStream::connect(host.server().addresses().http).await.unwrap();
            upgrade(&mut stream).await;
            let said = [text_frame(&hello), last].concat();
            let answer = says_all_then_reads(what, &mut stream, &said).await;
            assert!(
                answer.contains("\"type\":\"bye\"") && answer.contains(&format!("\"code\":\"{code}\"")),
                "{what}: {answer}"
            );
        }
        serves_a_game(&host).await;
        host.stop().await;
    });
}

#[test]
fn who_sends_a_body_to_the_end_reads_the_answer_that_came_before_it() {
    run(60, async {
        let host = Host::start_with_modules(&[short()], |settings| {
            settings.limits = limits(&[(Limit::AddressRooms, 1), (Limit::AddressConnections, 8)]);
            settings.limits_exempt = vec!["none".into()];
        })
        .await;
        let body = vec![b' '; (1 << 20) + 1];
        let with_body = |request: &str| {
            let head = format!(
                "{request} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            [head.as_bytes(), &body].concat()
        };
        // The first request for a room uses up what the address may.
        for (what, request, status) in [
            ("too long", "POST /api/rooms", "413"),
            ("one room too many", "POST /api/rooms", "429"),
            ("no such path", "POST /api/nothing", "404"),
            ("no such method", "PUT /api/rooms", "405"),
            ("no request", "NONSENSE\u{7f}", "400"),
            ("a module without a token", "PUT /api/modules/x", "401"),
        ] {
            let mut stream = TcpStream::connect(host.server().addresses().http).await.unwrap();
            let answer = says_all_then_reads(what, &mut stream, &with_body(request)).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        }
        // Those who are sent away before a request of theirs is read.
        let address = host.server().addresses().http;
        let idle: Vec<_> = futures_util::future::join_all((0..8).map(|_| TcpStream::connect(address))).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let answer = says_all_then_reads("one connection too many", &mut stream, &with_body("POST /api/rooms")).await;
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
        drop(idle);
        host.stop().await;

        let host =
            Host::start_with_modules(&[short()], |settings| settings.limits = limits(&[(Limit::Rooms, 1)])).await;
        host.open(SHORT, &["Ada"]).await;
        let mut stream = TcpStream::connect(host.server().addresses().http).await.unwrap();
        let answer = says_all_then_reads("a busy host", &mut stream, &with_body("POST /api/rooms")).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        host.stop().await;
    });
}
