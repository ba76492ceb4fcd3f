//! Sessions of the client over real sockets, against a host's side that does what each test says.

mod peer;

use holeshot_client::{
    ActionError, ByeCode, Carrier, Client, ConnectError, ConnectOptions, Incoming, InputError, Phase, RefusalCode,
    Transport,
};
use holeshot_wire::{ClientMessage, HostKeypair, HostMessage, ToClient};
use peer::{Peer, Said, Session, soon};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

/// Waits for the next thing that `pick` takes; what comes before it must be snapshots or notices of the carrier.
async fn incoming<T>(client: &mut Client, what: &str, pick: impl Fn(&Incoming) -> Option<T>) -> T {
    loop {
        let next = soon(what, client.next()).await.unwrap_or_else(|| panic!("over before {what}"));
        if let Some(picked) = pick(&next) {
            return picked;
        }
        assert!(matches!(next, Incoming::Snapshot(_) | Incoming::Carrier(_)), "{next:?} before {what}");
    }
}

async fn carrier(client: &mut Client, wanted: Carrier) {
    incoming(client, "a carrier", |next| (*next == Incoming::Carrier(wanted)).then_some(())).await;
}

async fn event(client: &mut Client) -> (u64, String) {
    incoming(client, "an event", |next| match next {
        Incoming::Event(event) => Some((event.seq, event.name.clone())),
        _ => None,
    })
    .await
}

async fn snapshot(client: &mut Client) -> (u32, Vec<u8>) {
    incoming(client, "a snapshot", |next| match next {
        Incoming::Snapshot(snapshot) => Some((snapshot.frame, snapshot.bytes.clone())),
        _ => None,
    })
    .await
}

/// A session on both sides: the client is connected and, over UDP, its address is confirmed.
macro_rules! open {
    ($peer:ident, $options:expr, $phase:expr, $client:ident, $session:ident) => {
        let options = $options;
        let (client, (session, after)) = tokio::join!(Client::connect(options), $peer.welcome($phase));
        let mut $client = client.unwrap();
        #[allow(unused_mut)]
        let mut $session: Session<'_> = session;
        assert_eq!(after, Some(0));
        if $session.seal.is_some() {
            tokio::select! {
                said = $session.hear() => panic!("{said:?} before the carrier"),
                () = carrier(&mut $client, Carrier::Udp) => {}
            }
        } else {
            carrier(&mut $client, Carrier::WebSocket).await;
        }
    };
}

/// Lets the session answer what the client does by itself until `future` is done.
async fn while_answering<T>(session: &mut Session<'_>, future: impl Future<Output = T>) -> T {
    tokio::pin!(future);
    loop {
        tokio::select! {
            done = &mut future => return done,
            _ = session.hear() => {}
        }
    }
}

#[tokio::test]
async fn a_whole_session_over_udp() {
    let mut peer = Peer::open().await;
    open!(peer, peer.udp_options(), Phase::Gathering, client, session);
    assert_eq!(client.welcome().room, "room-1");
    assert_eq!(client.stats().carrier, Some(Carrier::Udp));

    client.ready().await.unwrap();
    assert_eq!(session.hear_message().await, ClientMessage::Ready);

    session.event(1, "started").await;
    assert_eq!(event(&mut client).await, (1, "started".into()));

    let id = client.action(json!({"car": 3})).await.unwrap();
    let action = ClientMessage::Action { id, data: json!({"car": 3}) };
    assert_eq!(session.hear_message().await, action);
    let result = HostMessage::ActionResult { id, accepted: false, reason: Some("no".into()) };
    session.say(result.clone()).await;
    // Saying it twice does not make it two.
    session.say(result).await;
    session.event(2, "after").await;
    let result = soon("a result", client.next()).await;
    let expected = Incoming::ActionResult { id, accepted: false, reason: Some("no".into()) };
    assert_eq!(result, Some(expected));
    assert_eq!(event(&mut client).await.0, 2);

    // Before the first snapshot, no frame is due.
    assert_eq!(client.send_input(&[1]), Ok(None));
    let state: Vec<u8> = (0..3_000u32).map(|index| index as u8).collect();
    session.snapshot(100, &state).await;
    assert_eq!(snapshot(&mut client).await, (100, state));
    let frame = client.send_input(&[7, 8]).unwrap().unwrap();
    assert!(frame > 100, "{frame}");
    let Said::Inputs { inputs, snapshot_frame, over_udp } = session.hear().await else { panic!() };
    assert_eq!(inputs, [(frame, vec![7, 8])]);
    assert_eq!((snapshot_frame, over_udp), (Some(100), true));

    client.leave().await.unwrap();
    assert_eq!(session.hear_message().await, ClientMessage::Leave);
    let reason = "see you".to_string();
    session.say(HostMessage::Bye { code: ByeCode::Left, reason: reason.clone() }).await;
    let bye = soon("bye", client.next()).await;
    assert_eq!(bye, Some(Incoming::Bye { code: ByeCode::Left, reason }));
    assert_eq!(soon("the end", client.next()).await, None);
    assert_eq!(client.send_input(&[1]), Err(InputError::Closed));
    assert_eq!(client.action(json!(1)).await, Err(ActionError::Closed));
    let stats = client.stats();
    assert_eq!((stats.snapshots_received, stats.inputs_sent, stats.events_received), (1, 1, 2));
    assert_eq!((stats.refused, stats.reconnects), (0, 0));
    assert!(stats.rtt_us.is_some());
}

#[tokio::test]
async fn a_session_over_the_websocket_alone() {
    let mut peer = Peer::open().await;
    open!(peer, peer.websocket_options(), Phase::Running, client, session);
    let state = vec![5; 8_192];
    session.snapshot(9, &state).await;
    assert_eq!(snapshot(&mut client).await, (9, state));
    let frame = client.send_input(&[1]).unwrap().unwrap();
    let Said::Inputs { inputs, over_udp, .. } = session.hear().await else { panic!() };
    assert_eq!((inputs, over_udp), (vec![(frame, vec![1])], false));
}

/// Snapshots that come as deltas are the ones that the host had, and are acknowledged: by inputs, and without them now and then.
#[tokio::test]
async fn snapshots_come_from_deltas_and_are_acknowledged() {
    let state = |frame: u32| [&frame.to_le_bytes()[..], &[7; 200]].concat();
    for over_udp in [true, false] {
        let mut peer = Peer::open().await;
        peer.sends_deltas = true;
        let options = if over_udp { peer.udp_options() } else { peer.websocket_options() };
        open!(peer, options, Phase::Running, client, session);
        session.snapshot(100, &state(100)).await;
        assert_eq!(snapshot(&mut client).await, (100, state(100)));
        assert_eq!(session.hear().await, Said::Acknowledged(100));
        for frame in 101..=105 {
            session.delta(frame, (frame - 100) as u8, &state(100), &state(frame)).await;
            assert_eq!(snapshot(&mut client).await, (frame, state(frame)));
        }
        assert_eq!(session.hear().await, Said::Acknowledged(105));
        // Who sends inputs says it with them.
        for frame in 106..120 {
            session.delta(frame, 2, &state(frame - 2), &state(frame)).await;
            assert_eq!(snapshot(&mut client).await, (frame, state(frame)));
            client.send_input_for(frame + 1, &[1]).unwrap();
            let Said::Inputs { snapshot_frame, .. } = session.hear().await else { panic!() };
            assert_eq!(snapshot_frame, Some(frame));
        }
        // Of a snapshot that never was nothing can be made, and nothing is acknowledged.
        session.delta(130, 5, &state(125), &state(130)).await;
        session.snapshot(131, &[1; 9]).await;
        assert_eq!(snapshot(&mut client).await, (131, vec![1; 9]));
        let stats = client.stats();
        assert_eq!((stats.snapshots_from_deltas, stats.deltas_lost, stats.refused), (19, 1, 0), "{stats:?}");
    }
    // A host that sends no deltas gets no acknowledgements that it would not know, and hears of none in hello from who wants none.
    let mut peer = Peer::open().await;
    open!(peer, peer.udp_options(), Phase::Running, client, session);
    session.snapshot(100, &state(100)).await;
    assert_eq!(snapshot(&mut client).await, (100, state(100)));
    client.ready().await.unwrap();
    assert_eq!(session.hear().await, Said::Message(ClientMessage::Ready));
    let peer = Peer::open().await;
    for deltas in [true, false] {
        let options = ConnectOptions { deltas, reconnect_attempts_max: 0, ..peer.websocket_options() };
        let (hello, _) = tokio::join!(async { peer.hello().await.1 }, Client::connect(options));
        assert!(matches!(hello, ClientMessage::Hello { deltas: said, .. } if said == deltas), "{hello:?}");
    }
}

/// Every frame gets one input, in order, although each is sent several times.
#[tokio::test]
async fn inputs_follow_the_frames_without_a_gap() {
    let mut peer = Peer::open().await;
    open!(peer, peer.udp_options(), Phase::Running, client, session);
    let player = tokio::spawn(async move {
        while let Some(next) = client.next().await {
            if let Incoming::Snapshot(snapshot) = next {
                client.send_input(&snapshot.frame.to_le_bytes()).unwrap();
            }
        }
        client.stats()
    });
    let mut clock = tokio::time::interval(std::time::Duration::from_millis(20));
    let (mut frame, mut newest, mut first) = (0, None, None);
    while newest < Some(60) {
        tokio::select! {
            _ = clock.tick() => {
                session.snapshot(frame, &[]).await;
                frame += 1;
                assert!(frame < 1_000, "no inputs came");
            }
            said = session.hear() => {
                let Said::Inputs { inputs, .. } = said else { panic!("{said:?}") };
                let oldest = inputs.last().unwrap().0;
                // Whatever came before, nothing between is missing.
                assert!(newest.is_none_or(|newest| oldest <= newest + 1), "{oldest} after {newest:?}");
                first = first.or(Some(inputs[0].0));
                newest = newest.max(Some(inputs[0].0));
            }
        }
    }
    session.say(HostMessage::Bye { code: ByeCode::RoomFinished, reason: String::new() }).await;
    let stats = while_answering(&mut session, player).await.unwrap();
    assert!(stats.inputs_sent >= u64::from(60 - first.unwrap()), "{stats:?}");
    assert!(stats.lead_frames >= 1);
}

#[tokio::test]
async fn a_lost_connection_is_opened_again() {
    let mut peer = Peer::open().await;
    let (unanswered, answered) = {
        open!(peer, peer.udp_options(), Phase::Readying, client, session);
        client.ready().await.unwrap();
        session.event(1, "one").await;
        session.event(2, "two").await;
        assert_eq!(event(&mut client).await.0, 1);
        assert_eq!(event(&mut client).await.0, 2);
        let answered = client.action(json!("a")).await.unwrap();
        let unanswered = client.action(json!("b")).await.unwrap();
        assert!(unanswered > answered);
        assert_eq!(session.hear_message().await, ClientMessage::Ready);
        for _ in 0..2 {
            assert!(matches!(session.hear_message().await, ClientMessage::Action { .. }));
        }
        session.say(HostMessage::ActionResult { id: answered, accepted: true, reason: None }).await;
        assert!(matches!(client.next().await, Some(Incoming::ActionResult { .. })));
        // The connection breaks, without a word.
        drop(session);
        let lost = soon("the loss", client.next()).await;
        assert!(matches!(lost, Some(Incoming::Reconnecting { .. })), "{lost:?}");

        let (mut session, after) = peer.welcome(Phase::Readying).await;
        assert_eq!(after, Some(2));
        let again = soon("the return", client.next()).await;
        let Some(Incoming::Reconnected(welcome)) = again else { panic!("{again:?}") };
        assert!(welcome.resumed && welcome.session == 2);
        // What the host may not have got comes again, and nothing else.
        assert_eq!(session.hear_message().await, ClientMessage::Ready);
        let repeated = ClientMessage::Action { id: unanswered, data: json!("b") };
        assert_eq!(session.hear_message().await, repeated);
        // Events that come again are not given again.
        session.event(2, "two").await;
        session.event(3, "three").await;
        let next = while_answering(&mut session, event(&mut client)).await;
        assert_eq!(next, (3, "three".into()));
        // The new keys serve datagrams.
        if client.stats().carrier.is_none() {
            while_answering(&mut session, carrier(&mut client, Carrier::Udp)).await;
        }
        session.snapshot(5, b"state").await;
        assert_eq!(snapshot(&mut client).await, (5, b"state".to_vec()));
        assert_eq!(client.stats().reconnects, 1);
        (unanswered, answered)
    };
    // It came back with what the first welcome had brought.
    assert_eq!(peer.tickets, [peer::TICKET, "resume.1"]);
    assert_ne!(unanswered, answered);
}

#[tokio::test]
async fn a_host_that_is_gone_is_given_up() {
    let mut peer = Peer::open().await;
    let options = ConnectOptions { reconnect_attempts_max: 2, ..peer.websocket_options() };
    open!(peer, options, Phase::Running, client, session);
    drop(session);
    drop(peer);
    assert!(matches!(soon("the loss", client.next()).await, Some(Incoming::Reconnecting { .. })));
    let last = soon("the end", client.next()).await;
    assert!(matches!(last, Some(Incoming::Disconnected { error: ConnectError::Io { .. } })), "{last:?}");
    assert_eq!(soon("the end", client.next()).await, None);
}

#[tokio::test]
async fn a_client_that_shall_not_reconnect_does_not() {
    let mut peer = Peer::open().await;
    let options = ConnectOptions { reconnect_attempts_max: 0, ..peer.websocket_options() };
    open!(peer, options, Phase::Running, client, session);
    drop(session);
    let last = soon("the end", client.next()).await;
    assert!(matches!(last, Some(Incoming::Disconnected { .. })), "{last:?}");
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn a_refused_reconnect_is_final() {
    let mut peer = Peer::open().await;
    open!(peer, peer.websocket_options(), Phase::Running, client, session);
    drop(session);
    let (mut websocket, _) = peer.hello().await;
    let refused = HostMessage::Refused { code: RefusalCode::RoomClosed, reason: "over".into() };
    futures_util::SinkExt::send(&mut websocket, Message::text(refused.encode().unwrap())).await.unwrap();
    assert!(matches!(soon("the loss", client.next()).await, Some(Incoming::Reconnecting { .. })));
    let error = ConnectError::Refused { code: RefusalCode::RoomClosed, reason: "over".into() };
    assert_eq!(soon("the end", client.next()).await, Some(Incoming::Disconnected { error }));
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn udp_that_falls_silent_is_replaced_and_comes_back() {
    let mut peer = Peer::open().await;
    open!(peer, peer.udp_options(), Phase::Running, client, session);
    session.snapshot(1, b"one").await;
    assert_eq!(snapshot(&mut client).await.0, 1);

    session.hears_udp = false;
    while_answering(&mut session, carrier(&mut client, Carrier::WebSocket)).await;
    // The host has heard of it by the first binary message, and inputs come that way.
    let frame = loop {
        if let Some(frame) = client.send_input(&[1]).unwrap() {
            break frame;
        }
        tokio::task::yield_now().await;
    };
    let Said::Inputs { inputs, over_udp, .. } = session.hear().await else { panic!() };
    assert_eq!((inputs[0].0, over_udp), (frame, false));
    session.snapshot(2, b"two").await;
    assert_eq!(snapshot(&mut client).await, (2, b"two".to_vec()));

    session.hears_udp = true;
    while_answering(&mut session, carrier(&mut client, Carrier::Udp)).await;
    session.snapshot(3, b"three").await;
    assert_eq!(snapshot(&mut client).await, (3, b"three".to_vec()));
}

#[tokio::test]
async fn udp_that_never_works_is_replaced() {
    let mut peer = Peer::open().await;
    let (client, (mut session, _)) = tokio::join!(Client::connect(peer.udp_options()), peer.welcome(Phase::Running));
    let mut client = client.unwrap();
    session.hears_udp = false;
    while_answering(&mut session, carrier(&mut client, Carrier::WebSocket)).await;
    assert_eq!(client.stats().carrier, Some(Carrier::WebSocket));
}

#[tokio::test]
async fn foreign_and_repeated_datagrams_are_counted_and_dropped() {
    let mut peer = Peer::open().await;
    open!(peer, peer.udp_options(), Phase::Running, client, session);
    // A pong to no ping; it opens, but means nothing.
    let payload = ToClient::Pong(u64::MAX);
    let datagram = session.sealed(payload);
    session.datagram(&datagram).await;
    session.datagram(&datagram).await;
    let mut altered = session.sealed(payload);
    altered[20] ^= 1;
    session.datagram(&altered).await;
    session.datagram(b"short").await;
    session.datagram(&[1; 1_500]).await;
    // Loopback keeps the order, so all of them have come when this has.
    session.snapshot(1, b"fine").await;
    assert_eq!(snapshot(&mut client).await, (1, b"fine".to_vec()));
    let stats = client.stats();
    assert_eq!((stats.duplicates, stats.refused), (1, 4));
    assert!(stats.rtt_us.is_some_and(|rtt_us| rtt_us < 20_000_000), "{stats:?}");
}

/// Nobody reads, the host goes on sending: it has to wait, and nothing is lost.
#[tokio::test]
async fn events_wait_for_a_player_program_that_is_slow() {
    const EVENTS: u64 = 1_500;
    let mut peer = Peer::open().await;
    open!(peer, peer.websocket_options(), Phase::Running, client, session);
    let sender = async {
        for seq in 1..=EVENTS {
            let data = json!("x".repeat(4_000));
            let event = HostMessage::Event { seq, name: "e".into(), frame: None, time_ms: None, data };
            session.say(event).await;
        }
        session
    };
    let reader = async {
        // Long enough for the queues in between to fill; that they did is not what is tested.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        for expected in 1..=EVENTS {
            assert_eq!(event(&mut client).await.0, expected);
        }
    };
    let (_session, ()) = tokio::join!(sender, reader);
    assert_eq!(client.stats().events_received, EVENTS);
}

#[tokio::test]
async fn dropping_the_client_closes_the_connection() {
    let mut peer = Peer::open().await;
    open!(peer, peer.udp_options(), Phase::Running, client, session);
    drop(client);
    // No `leave`: the player may come back.
    assert_eq!(session.hear().await, Said::Closed);
}

#[tokio::test]
async fn what_a_host_must_not_say_ends_the_session() {
    let mut peer = Peer::open().await;
    open!(peer, peer.websocket_options(), Phase::Running, client, session);
    let nonsense = Message::text(r#"{"type":"event","seq":0,"name":"e","data":1}"#);
    futures_util::SinkExt::send(&mut session.websocket, nonsense).await.unwrap();
    let last = soon("the end", client.next()).await;
    let Some(Incoming::Disconnected { error: ConnectError::Protocol { reason } }) = last else { panic!("{last:?}") };
    assert!(reason.contains("`seq` of `event`"), "{reason}");
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn errors_of_connecting_say_what_is_wrong() {
    let mut peer = Peer::open().await;
    let connect = |options| soon("an answer", Client::connect(options));

    let bad_url = ConnectOptions::websocket("http://x", "t");
    assert!(matches!(connect(bad_url).await, Err(ConnectError::Url { .. })));
    let nobody = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://{}", plain.local_addr().unwrap());
    let trust = Some(std::sync::Arc::new(nobody).into());
    let tls = ConnectOptions { trust, ..ConnectOptions::websocket(&url, "t") };
    let (tls, ()) = tokio::join!(connect(tls), async {
        let (mut stream, _) = plain.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let reason = "what answers does not speak TLS there".to_owned();
    assert_eq!(tls.err(), Some(ConnectError::Tls { url, reason }));
    let no_key = ConnectOptions { transport: Transport::Udp, ..peer.websocket_options() };
    assert_eq!(connect(no_key).await.err(), Some(ConnectError::HostKeyMissing));
    let long = ConnectOptions { ticket: "t".repeat(9_000), ..peer.websocket_options() };
    assert!(matches!(connect(long).await, Err(ConnectError::Ticket(_))));

    let (refused, ()) = tokio::join!(connect(peer.websocket_options()), async {
        let (mut websocket, _) = peer.hello().await;
        let refused = HostMessage::Refused { code: RefusalCode::BadTicket, reason: "no".into() };
        let text = Message::text(refused.encode().unwrap());
        futures_util::SinkExt::send(&mut websocket, text).await.unwrap();
    });
    let expected = ConnectError::Refused { code: RefusalCode::BadTicket, reason: "no".into() };
    assert_eq!(refused.err(), Some(expected));

    let (closed, ()) = tokio::join!(connect(peer.websocket_options()), async {
        drop(peer.hello().await);
    });
    assert!(matches!(closed, Err(ConnectError::Io { .. })));

    // Somebody else answers in the host's place: it has the address, but not the key.
    let real = HostKeypair::from_private([4; 32]).unwrap();
    let options = ConnectOptions::udp(peer.url(), peer::TICKET, real.public());
    let (impostor, ()) = tokio::join!(connect(options), async {
        let (mut websocket, hello) = peer.hello().await;
        let ClientMessage::Hello { noise: Some(message_1), .. } = hello else { panic!() };
        let impostor = HostKeypair::from_private([5; 32]).unwrap();
        assert!(holeshot_wire::accept(&impostor, peer::TICKET, &message_1, [6; 32]).is_err());
        let mut answer = message_1;
        answer.0[40] ^= 1;
        let welcome = HostMessage::Welcome {
            session: 1,
            room: "r".into(),
            player: Some(0),
            players: Vec::new(),
            udp_port: Some(9),
            noise: Some(answer),
            tick_hz: 50,
            rules: holeshot_wire::RulesInfo { name: "t".into(), version: "1".into(), hash: "0".repeat(64) },
            phase: Phase::Running,
            resumed: false,
            resume: None,
            deltas: false,
        };
        let text = Message::text(welcome.encode().unwrap());
        futures_util::SinkExt::send(&mut websocket, text).await.unwrap();
    });
    assert!(matches!(impostor, Err(ConnectError::Handshake(_))));
    let secret = format!("{:?}", peer.udp_options());
    assert!(!secret.contains(peer::TICKET), "{secret}");
    let _ = &mut peer;
}
