//! The test vectors of `VECTORS.md`, made from fixed bytes and compared with the file. A change of the protocol that
//! nobody intended fails here. `HOLESHOT_WRITE_VECTORS=1 cargo test -p holeshot-wire --test vectors` writes the file anew.

use std::fmt::Write;

use holeshot_wire::{
    ClientHandshake, ClientMessage, Delta, HostKeypair, HostMessage, Inputs, Phase, PlayerName, RulesInfo, Sealer,
    Snapshot, ToClient, ToHost, accept, payload::Encode, write_delta,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/VECTORS.md");
const TICKET: &str = "a.ticket";
const SESSION: u32 = 0x0102_0304;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The bytes `first`, `first + 1`, and so on.
fn counting(first: u8) -> [u8; 32] {
    std::array::from_fn(|index| first + index as u8)
}

fn row(out: &mut String, name: &str, bytes: &[u8]) {
    writeln!(out, "| {name} | `{}` |", hex(bytes)).unwrap();
}

fn sealed(out: &mut String, sealer: &mut Sealer, name: &str, payload: &impl Encode) {
    let (mut plain, mut datagram) = (Vec::new(), Vec::new());
    payload.encode(&mut plain).unwrap();
    let sequence = sealer.seal(payload, &mut datagram).unwrap();
    row(out, &format!("{name}: payload"), &plain);
    row(out, &format!("{name}: datagram, sequence {sequence}"), &datagram);
}

fn vectors() -> String {
    let host = HostKeypair::from_private(counting(0x00)).unwrap();
    let (client, message_1) = ClientHandshake::start(&host.public(), TICKET, counting(0x20)).unwrap();
    let (host_keys, message_2) = accept(&host, TICKET, &message_1, counting(0x40)).unwrap();
    let client_keys = client.finish(&message_2).unwrap();
    let (mut client_sealer, mut client_opener) = client_keys.into_client(SESSION);
    let (mut host_sealer, mut host_opener) = host_keys.into_host(SESSION);

    let mut out = String::from(
        "# Test vectors of protocol 1\n\n\
         Made and checked by `tests/vectors.rs`; the specification is the documentation of this crate. Bytes are in\n\
         hexadecimal. Keys do not appear: a datagram that opens shows them to be right.\n\n\
         ## Handshake\n\n| what | bytes |\n| --- | --- |\n",
    );
    writeln!(out, "| ticket, as text | `{TICKET}` |").unwrap();
    row(&mut out, "host's private key", host.private());
    row(&mut out, "host's public key", &host.public());
    row(&mut out, "client's ephemeral private key", &counting(0x20));
    row(&mut out, "host's ephemeral private key", &counting(0x40));
    row(&mut out, "prologue", format!("holeshot/1\n{TICKET}").as_bytes());
    row(&mut out, "message 1", &message_1.0);
    writeln!(out, "| message 1, in JSON | `{}` |", message_1.to_base64()).unwrap();
    row(&mut out, "message 2", &message_2.0);
    writeln!(out, "| message 2, in JSON | `{}` |", message_2.to_base64()).unwrap();
    let hello =
        ClientMessage::Hello { protocol: 1, ticket: TICKET.into(), noise: Some(message_1), after: None, deltas: false };
    let welcome = HostMessage::Welcome {
        session: SESSION,
        room: "room-1".into(),
        player: Some(0),
        players: vec![PlayerName { player: 0, name: "Ada".into() }],
        udp_port: Some(7_700),
        noise: Some(message_2),
        tick_hz: 50,
        rules: RulesInfo { name: "drag-race".into(), version: "0.1.0".into(), hash: "0123456789abcdef".repeat(4) },
        phase: Phase::Gathering,
        resumed: false,
        resume: Some("the.next.ticket".into()),
        deltas: false,
    };
    // What comes when the connection was lost: another handshake, with the ticket that this welcome brought.
    let (_, message_1) = ClientHandshake::start(&host.public(), "the.next.ticket", counting(0x60)).unwrap();
    let again = ClientMessage::Hello {
        protocol: 1,
        ticket: "the.next.ticket".into(),
        noise: Some(message_1),
        after: Some(7),
        deltas: true,
    };
    writeln!(out, "\n```json\n{}\n{}\n```", hello.encode().unwrap(), welcome.encode().unwrap()).unwrap();
    writeln!(out, "\nThe same player after its connection was lost, with a new key of its own (`60` to `7f`), seven events seen, and a client that takes deltas:\n")
        .unwrap();
    writeln!(out, "```json\n{}\n```", again.encode().unwrap()).unwrap();

    writeln!(out, "\n## Datagrams\n\nWith the keys of this handshake, session {SESSION}.\n").unwrap();
    out.push_str("| what | bytes |\n| --- | --- |\n");
    sealed(&mut out, &mut client_sealer, "Probe", &ToHost::Probe);
    sealed(&mut out, &mut client_sealer, "Response", &ToHost::Response([1, 2, 3, 4, 5, 6, 7, 8]));
    let mut inputs = Vec::new();
    Inputs::write(300, Some(297), [&[0xA0, 0xA1][..], &[0xB0], &[]], &mut inputs).unwrap();
    let inputs = ToHost::decode(&inputs).unwrap();
    sealed(&mut out, &mut client_sealer, "Inputs for frames 300, 299, 298", &inputs);
    sealed(&mut out, &mut client_sealer, "Ping", &ToHost::Ping(0x1122_3344_5566_7788));
    let challenge = ToClient::Challenge([1, 2, 3, 4, 5, 6, 7, 8]);
    sealed(&mut out, &mut host_sealer, "Challenge", &challenge);
    let snapshot =
        Snapshot { frame: 299, part: 0, parts: 1, margin_ms: Some(-7), newest_input_frame: Some(300), bytes: b"state" };
    sealed(&mut out, &mut host_sealer, "Snapshot", &ToClient::Snapshot(snapshot));
    sealed(&mut out, &mut host_sealer, "Pong", &ToClient::Pong(0x1122_3344_5566_7788));
    let payload = |out: &mut String, name: &str, payload: &dyn Encode| {
        let mut bytes = Vec::new();
        payload.encode(&mut bytes).unwrap();
        row(out, name, &bytes);
    };
    payload(&mut out, "Ack of frame 299: payload", &ToHost::Ack(299));
    deltas(&mut out);
    let mut delta = Vec::new();
    assert!(write_delta(1, b"state", b"stats", usize::MAX, &mut delta));
    let delta = Snapshot { frame: 300, newest_input_frame: Some(301), bytes: &delta, ..snapshot };
    out.push_str("\nWhat follows the snapshot of frame 299 above, `state`, where that was acknowledged: `stats`.\n\n");
    out.push_str("| what | bytes |\n| --- | --- |\n");
    payload(&mut out, "Delta of frame 300: payload", &ToClient::Delta(delta));

    // What stands in the file opens on the other side.
    let (mut datagram, mut opened) = (Vec::new(), 0);
    client_sealer.seal(&ToHost::Probe, &mut datagram).unwrap();
    opened += host_opener.open(&mut datagram).unwrap().payload.len();
    host_sealer.seal(&ToClient::Pong(1), &mut datagram).unwrap();
    opened += client_opener.open(&mut datagram).unwrap().payload.len();
    assert_eq!(opened, 18);
    out
}

/// Deltas from bases, each with the snapshot that they make; one with every kind of step, as no writer needs it.
fn deltas(out: &mut String) {
    out.push_str(
        "\n## Deltas\n\nEach makes its snapshot from its base.\n\n| base | snapshot | delta |\n| --- | --- | --- |\n",
    );
    let counting: Vec<u8> = (0..40).collect();
    let (mut changed, mut moved) = (counting.clone(), counting.clone());
    (changed[1], changed[7], changed[39]) = (0xA0, 0xA1, 0xA2);
    moved.drain(16..24);
    let written = |base: &[u8], snapshot: &[u8]| {
        let mut delta = Vec::new();
        assert!(write_delta(3, base, snapshot, usize::MAX, &mut delta));
        delta
    };
    let all_steps =
        [&[32, 45, 0, 0xFF, 0, 0xFF, 0xBC, 0x00, 0xFF, 0xC0][..], b"8 bytes.", &[0x11, 0xD0, 0xD1, 0x02, 0xE0]];
    let rows = [
        (&counting[..], changed.clone(), written(&counting, &changed)),
        (&counting, moved.clone(), written(&counting, &moved)),
        (&[], b"new".to_vec(), written(&[], b"new")),
        (&counting, applied(&counting, &all_steps.concat()), all_steps.concat()),
    ];
    for (base, snapshot, delta) in rows {
        assert_eq!(applied(base, &delta), snapshot);
        writeln!(out, "| `{}` | `{}` | `{}` |", hex(base), hex(&snapshot), hex(&delta)).unwrap();
    }
}

fn applied(base: &[u8], delta: &[u8]) -> Vec<u8> {
    let mut snapshot = Vec::new();
    Delta::read(delta).unwrap().apply(base, &mut snapshot).unwrap();
    snapshot
}

#[test]
fn the_file_holds_the_vectors_of_this_code() {
    let made = vectors();
    if std::env::var_os("HOLESHOT_WRITE_VECTORS").is_some() {
        std::fs::write(FILE, &made).unwrap();
    }
    let kept = std::fs::read_to_string(FILE).unwrap_or_default();
    assert_eq!(kept, made, "if this change of the protocol is meant, write VECTORS.md anew");
}
