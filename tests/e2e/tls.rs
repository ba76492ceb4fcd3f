//! TLS at the doors: real handshakes with certificates made on the spot, a game over wss:// and datagrams, another certificate while a session runs on, bad ones
//! that are refused, and strangers who do not finish a handshake or do not speak TLS. What is wrong with each kind of file is in `host/src/tls`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use holeshot::api::Api;
use holeshot::load::{Load, Options};
use holeshot_client::{Client, ConnectError, ConnectOptions, Incoming, Trust};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{Host, SOON, eventually, lines_with, run};
use crate::last_words;
use crate::modules_made::{SHORT, Tally, short};

const LONG: &str = "tally-long";

/// An authority that signs certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::<String>::new()).unwrap();
        // No two have one name: else it is the signature that is wrong, not the signer.
        let mut name = [0; 8];
        getrandom::fill(&mut name).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, format!("{name:02x?}"));
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(parameters, key) }
    }

    /// Signs a certificate for this machine and writes it with its key to a folder.
    fn sign(&self, dir: &Path) -> (PathBuf, PathBuf) {
        self.sign_until(dir, None)
    }

    /// The same for a certificate with an end.
    fn sign_until(&self, dir: &Path, end: Option<SystemTime>) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut parameters = CertificateParams::new(names).unwrap();
        if let Some(end) = end {
            parameters.not_after = end.into();
        }
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let paths = (dir.join("host.pem"), dir.join("host.key"));
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }

    fn trust(&self) -> Trust {
        Trust::only(self.pem.as_bytes()).unwrap()
    }

    fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join("ca.pem");
        std::fs::write(&path, &self.pem).unwrap();
        path
    }
}

struct Secure {
    host: Host,
    files: tempfile::TempDir,
    authority: Authority,
}

impl Secure {
    async fn start() -> Self {
        let (files, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let (certificate, key) = authority.sign(files.path());
        let modules = [short(), Tally::new(LONG, 100_000).wasm()];
        let host = Host::start_with_modules(&modules, |settings| {
            settings.tls_certificate = Some(certificate);
            settings.tls_key = Some(key);
        })
        .await;
        Self { host, files, authority }
    }

    fn http(&self, trust: &Trust) -> reqwest::Client {
        let tls = (*trust.config()).clone();
        reqwest::Client::builder().no_proxy().timeout(SOON).tls_backend_preconfigured(tls).build().unwrap()
    }

    /// Opens a room for one player and gives what it connects with.
    async fn join(&self, module: &str, trust: &Trust) -> ConnectOptions {
        let http = self.http(trust);
        let post = async |path: String, body: serde_json::Value| -> serde_json::Value {
            let answer = http.post(self.host.url(&path)).json(&body).send().await.unwrap();
            assert!(answer.status().is_success(), "{answer:?}");
            answer.json().await.unwrap()
        };
        let room = post("/api/rooms".into(), json!({ "module": module, "players": [{ "name": "Ada" }] })).await;
        let room = room["room"].as_str().unwrap().to_owned();
        let grant: crate::harness::Grant =
            serde_json::from_value(post(format!("/api/rooms/{room}/join"), json!({ "player": "Ada" })).await).unwrap();
        assert!(grant.ws_url.starts_with("wss://127.0.0.1:"), "{}", grant.ws_url);
        let options = ConnectOptions::udp(&grant.ws_url, &grant.ticket, grant.key());
        ConnectOptions { trust: Some(trust.clone()), ..options }
    }
}

async fn next(client: &mut Client) -> Incoming {
    timeout(SOON, client.next()).await.expect("something comes").expect("the session goes on")
}

async fn frame(client: &mut Client, frame: u32) -> u32 {
    loop {
        match next(client).await {
            Incoming::Snapshot(snapshot) if snapshot.frame >= frame => return snapshot.frame,
            Incoming::Bye { code, reason } => panic!("{code}: {reason}"),
            Incoming::Disconnected { error } => panic!("{error}"),
            Incoming::Reconnecting { reason } => panic!("the connection was cut: {reason}"),
            _ => {}
        }
    }
}

#[test]
fn a_game_is_played_over_tls_by_those_who_trust_the_host() {
    run(60, async {
        let secure = Secure::start().await;
        let trust = secure.authority.trust();
        let options = secure.join(SHORT, &trust).await;
        // Who trusts somebody else, or nobody whom it could, is told why it cannot come in.
        let stranger = ConnectOptions { trust: Some(Authority::new().trust()), ..options.clone() };
        match Client::connect(stranger).await.err() {
            Some(ConnectError::Tls { reason, .. }) => assert!(reason.contains("trust its authority"), "{reason}"),
            other => panic!("{other:?}"),
        }
        let mut ada = Client::connect(options).await.unwrap();
        ada.ready().await.unwrap();
        loop {
            if let Incoming::Event(event) = next(&mut ada).await
                && event.name == "finished"
            {
                break;
            }
        }
        let api = Api::trusting(&secure.host.url(""), Some(&secure.authority.write(secure.files.path()))).unwrap();
        assert_eq!(api.get("/readyz").await.unwrap()["status"], "ready");
        // The load generator's players have the same door.
        let options = Options { module: Some(SHORT.into()), rooms: 2, players: 1, ..Options::default() };
        let load = Load::start(&api, &options).await.unwrap();
        load.begun().await.unwrap();
        eventually("both games are over", SOON, async || match load.counts() {
            counts if counts.games_over == 2 => Ok(()),
            counts => Err(format!("{counts:?}")),
        })
        .await;
        assert!(load.stop().await.unwrap().counts.snapshots > 0);
        let other = Api::trusting(&secure.host.url(""), Some(&secure.files.path().join("host.pem"))).unwrap();
        let error = format!("{:#}", other.get("/readyz").await.unwrap_err());
        assert!(error.contains("no TLS with https://") && error.contains("--ca FILE"), "{error}");
        secure.host.stop().await;
    });
}

#[test]
fn a_new_certificate_is_taken_while_sessions_run_on_and_a_bad_one_is_not() {
    run(90, async {
        let secure = Secure::start().await;
        let options = secure.join(LONG, &secure.authority.trust()).await;
        // Over the WebSocket alone, so that its connection has to last.
        let mut ada = Client::connect(ConnectOptions {
            transport: holeshot_client::Transport::WebSocketOnly,
            reconnect_attempts_max: 0,
            ..options
        })
        .await
        .unwrap();
        ada.ready().await.unwrap();
        let before = frame(&mut ada, 5).await;

        let second = Authority::new();
        second.sign(secure.files.path());
        let ready = async |authority: &Authority| {
            let answer = secure.http(&authority.trust()).get(secure.host.url("/readyz")).send().await;
            answer.map(|answer| answer.status().as_u16()).map_err(|error| format!("{error:?}"))
        };
        eventually("the new certificate", SOON, async || ready(&second).await.map(drop)).await;
        assert!(ready(&secure.authority).await.is_err(), "the old one is still shown");
        let after = frame(&mut ada, before + 10).await;

        // A key that does not fit, then no PEM at all: told, and nothing changes.
        std::fs::write(secure.files.path().join("host.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let told = |words: &str| lines_with("the certificate in force stays").iter().any(|line| line.contains(words));
        eventually(
            "a word about the key",
            SOON,
            async || {
                if told("does not belong") { Ok(()) } else { Err("nothing".into()) }
            },
        )
        .await;
        std::fs::write(secure.files.path().join("host.pem"), "gone").unwrap();
        eventually(
            "a word about the file",
            SOON,
            async || {
                if told("is not PEM") { Ok(()) } else { Err("nothing".into()) }
            },
        )
        .await;
        assert_eq!(ready(&second).await, Ok(200));
        frame(&mut ada, after + 10).await;
        secure.host.stop().await;
    });
}

#[test]
fn who_does_not_finish_a_handshake_or_speaks_no_tls_is_sent_away() {
    run(60, async {
        let secure = Secure::start().await;
        let address = secure.host.server().addresses().http;
        let mut strangers = Vec::new();
        for number in 0..60 {
            let mut stranger = TcpStream::connect(address).await.unwrap();
            // Nothing, a byte of a record, or a record that promises more than ever comes.
            let begun: &[u8] = [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"][number % 3];
            stranger.write_all(begun).await.unwrap();
            strangers.push(stranger);
        }
        // Meanwhile everybody else is served.
        let trust = secure.authority.trust();
        let http = secure.http(&trust);
        assert_eq!(http.get(secure.host.url("/readyz")).send().await.unwrap().status(), 200);
        for mut stranger in strangers {
            let mut answer = Vec::new();
            let _reset = timeout(SOON, stranger.read_to_end(&mut answer)).await.expect("the host ends it");
        }
        let metrics = http.get(secure.host.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let failed =
            metrics.lines().find_map(|line| line.strip_prefix("holeshot_tls_handshakes_total{outcome=\"failed\"} "));
        assert!(failed.unwrap().parse::<u64>().unwrap() >= 60, "{failed:?}");
        assert!(metrics.contains("\nholeshot_tls_certificate_end_seconds "), "no end of the certificate");

        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(SOON, plain.read_to_string(&mut answer)).await.expect("the host ends it").unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("tls_required"), "{answer}");
        // HTTP/2 alone is not spoken; TLS 1.2 is.
        let mut old = (*trust.config()).clone();
        old.alpn_protocols = vec![b"h2".to_vec()];
        let h2 = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(old).build().unwrap();
        assert!(h2.get(secure.host.url("/readyz")).timeout(Duration::from_secs(10)).send().await.is_err());
        let roots = {
            use rustls::pki_types::pem::PemObject;
            let mut roots = rustls::RootCertStore::empty();
            let ca = rustls::pki_types::CertificateDer::from_pem_slice(secure.authority.pem.as_bytes()).unwrap();
            roots.add(ca).unwrap();
            roots
        };
        let old = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let old = secure.http(&std::sync::Arc::new(old).into());
        assert_eq!(old.get(secure.host.url("/readyz")).send().await.unwrap().status(), 200);
        secure.host.stop().await;
    });
}

#[test]
fn a_certificate_that_runs_out_while_the_host_runs_is_told_in_the_log() {
    run(60, async {
        let (files, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        // A start takes less.
        let end = SystemTime::now() + Duration::from_secs(8);
        let (certificate, key) = authority.sign_until(files.path(), Some(end));
        let path = certificate.display().to_string();
        let host = Host::start_with_modules(&[short()], |settings| {
            settings.tls_certificate = Some(certificate);
            settings.tls_key = Some(key);
        })
        .await;
        let told = |words: &str| lines_with(words).iter().filter(|line| line.contains(&path)).count();
        for words in ["the certificate expires soon", "the certificate has expired"] {
            eventually(words, SOON, async || if told(words) > 0 { Ok(()) } else { Err("nothing".into()) }).await;
        }
        // Once a day each, however often the files are looked at.
        assert_eq!((told("the certificate expires soon"), told("the certificate has expired")), (1, 1));
        authority.sign(files.path());
        let tls = (*authority.trust().config()).clone();
        let http = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap();
        eventually("the new certificate is shown", SOON, async || match http.get(host.url("/readyz")).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        })
        .await;
        host.stop().await;
    });
}

#[test]
fn who_goes_on_talking_still_reads_the_last_words_over_tls() {
    run(60, async {
        let secure = Secure::start().await;
        let connector = tokio_rustls::TlsConnector::from(secure.authority.trust().config());
        let connect = async || {
            let tcp = TcpStream::connect(secure.host.server().addresses().http).await.unwrap();
            connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap()
        };
        let mut refused = connect().await;
        last_words::upgrade(&mut refused).await;
        let answer = last_words::says_all_then_reads("a refusal", &mut refused, &last_words::endless()).await;
        assert!(answer.contains("\"code\":\"bad_message\""), "{answer}");
        let body = " ".repeat((1 << 20) + 1);
        let request = format!("POST /api/rooms HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let answer = last_words::says_all_then_reads("an answer", &mut connect().await, request.as_bytes()).await;
        // Its doors are shut for who calls it by a name that it does not know.
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        // And who does not speak TLS at all.
        let mut plain = TcpStream::connect(secure.host.server().addresses().http).await.unwrap();
        let answer = last_words::says_all_then_reads("no TLS", &mut plain, request.as_bytes()).await;
        assert!(answer.contains("tls_required"), "{answer}");
        secure.host.stop().await;
    });
}
