//! A broker elsewhere as its operator may run it: with TLS, client certificates, passwords and rights (a real mosquitto), in both
//! versions of MQTT, and one that knows only the old version. What goes wrong is said with the next step, and never with the password.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::command::{Served, holeshot, output, text};
use crate::external::{manager, ready, rows};
use crate::harness::{SOON, data_dir, eventually, run};
use crate::modules_made::SHORT;
use crate::mosquitto::Mosquitto;

/// An authority that signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(parameters, key), pem }
    }

    /// Writes a certificate for this name and its key, as files that begin with `stem`.
    fn sign(&self, dir: &Path, stem: &str, name: &str, usage: ExtendedKeyUsagePurpose, is_over: bool) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.extended_key_usages = vec![usage];
        // OpenSSL takes a certificate for self-signed that has its authority's name.
        parameters.distinguished_name.push(DnType::CommonName, name);
        if is_over {
            parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
            parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(dir.join(format!("{stem}.pem")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{stem}.key")), key.serialize_pem()).unwrap();
    }
}

/// Files for both sides, in one folder.
struct Pki {
    dir: tempfile::TempDir,
}

impl Pki {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ours, foreign) = (Authority::new(), Authority::new());
        std::fs::write(dir.path().join("ca.pem"), &ours.pem).unwrap();
        std::fs::write(dir.path().join("foreign-ca.pem"), &foreign.pem).unwrap();
        let (server, client) = (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
        ours.sign(dir.path(), "broker", "localhost", server.clone(), false);
        ours.sign(dir.path(), "expired", "localhost", server, true);
        ours.sign(dir.path(), "client", "pit", client.clone(), false);
        foreign.sign(dir.path(), "stranger", "pit", client, false);
        std::fs::write(dir.path().join("password"), "hidden-word\n").unwrap();
        std::fs::write(dir.path().join("wrong-password"), "hidden-guess\n").unwrap();
        std::fs::write(dir.path().join("text"), "no certificate").unwrap();
        // mosquitto may run as another user.
        #[cfg(unix)]
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Settings of a broker that shows this certificate.
    fn settings(&self, stem: &str) -> String {
        let [ca, certificate, key] = ["ca.pem".into(), format!("{stem}.pem"), format!("{stem}.key")];
        let [ca, certificate, key] = [ca, certificate, key].map(|name: String| self.arg(&name));
        format!("cafile {ca}\ncertfile {certificate}\nkeyfile {key}\n")
    }
}

/// A file of users with the password `hidden-word`.
fn password_file(dir: &Path) -> String {
    let path = dir.join("users");
    std::fs::write(&path, "pit:hidden-word\nkeeper:hidden-word\nguest:hidden-word\n").unwrap();
    let hashed = std::process::Command::new("mosquitto_passwd").arg("-U").arg(&path).status();
    assert!(hashed.expect("mosquitto_passwd comes with mosquitto").success());
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Flags with the values that they are to have instead, or none.
type Changes<'a> = &'a [(&'a str, Option<&'a str>)];

/// What `holeshot events` says on standard error until a line has these words. Fails when it ends or is silent before.
async fn says(args: &[String], words: &str) -> String {
    let args: Vec<&str> = std::iter::once("events").chain(args.iter().map(String::as_str)).collect();
    let mut command = holeshot(&args);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = String::new();
    let found = timeout(SOON, async {
        while let Ok(Some(line)) = lines.next_line().await {
            said.push_str(&line);
            said.push('\n');
            if line.contains(words) {
                return true;
            }
        }
        false
    });
    let found = found.await.unwrap_or(false);
    child.kill().await.unwrap();
    assert!(found, "{args:?} never says {words:?}:\n{said}");
    assert!(!said.contains("hidden-"), "{said}");
    said
}

fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|&arg| arg.to_owned()).collect()
}

#[test]
fn a_race_is_recorded_over_tls_with_client_certificates_and_passwords() {
    run(90, async {
        let pki = Pki::new();
        let settings = |dir: &Path| {
            let users = password_file(dir);
            format!(
                "{}require_certificate true\nallow_anonymous false\npassword_file {users}\n",
                pki.settings("broker")
            )
        };
        let Some(broker) = Mosquitto::start_with(settings).await else { return };
        let url = format!("mqtts://localhost:{}", broker.port);
        let (ca, certificate, key) = (pki.arg("ca.pem"), pki.arg("client.pem"), pki.arg("client.key"));
        let password = pki.arg("password");
        let access = [
            ["--broker-ca", &ca],
            ["--broker-certificate", &certificate],
            ["--broker-key", &key],
            ["--broker-username", "pit"],
            ["--broker-password-file", &password],
        ]
        .concat();
        let (host_dir, manager_dir) = (data_dir(), tempfile::tempdir().unwrap());
        let recorder = manager(manager_dir.path(), &url, &access).await;
        ready(&recorder.url).await;
        let args: Vec<&str> = ["--broker", &url, "--manager", "no"].into_iter().chain(access.clone()).collect();
        let host = Served::start_with_games(host_dir.path(), &args).await;
        let (_, mut ada) = host.playing(SHORT).await;
        ada.event("finished").await;
        host.signal(libc::SIGTERM);
        let (code, rest, error) = host.end().await;
        assert_eq!(code, Some(0), "{error}");
        let last: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
        assert_eq!(last["events_left"], 0, "{last} {error}");
        recorder.signal(libc::SIGTERM);
        let (code, _, of_recorder) = recorder.end().await;
        assert_eq!(code, Some(0), "{of_recorder}");
        assert_eq!((rows(manager_dir.path(), "room.finished"), rows(manager_dir.path(), "host.stopping")), (1, 1));
        assert!(!format!("{error}{of_recorder}").contains("hidden-"), "{error}{of_recorder}");

        // One thing is wrong at a time.
        let all: Vec<(&str, String)> =
            access.chunks(2).map(|pair| (pair[0], pair[1].to_owned())).chain([("--broker", url.clone())]).collect();
        let but = |changes: Changes<'_>| -> Vec<String> {
            let mut args = Vec::new();
            for (flag, value) in &all {
                let value = match changes.iter().find(|(changed, _)| changed == flag) {
                    Some((_, change)) => change.map(str::to_owned),
                    None => Some(value.clone()),
                };
                args.extend(value.into_iter().flat_map(|value| [(*flag).to_owned(), value]));
            }
            args
        };
        says(&but(&[]), "following").await;
        let by_address = format!("mqtts://127.0.0.1:{}", broker.port);
        let plain = format!("mqtt://localhost:{}", broker.port);
        let foreign = pki.arg("foreign-ca.pem");
        let (stranger, strangers_key) = (pki.arg("stranger.pem"), pki.arg("stranger.key"));
        let wrong = pki.arg("wrong-password");
        let cases: [(Changes<'_>, &str); 7] = [
            (&[("--broker-ca", Some(&foreign))], "name the file of its authority"),
            (&[("--broker-ca", None)], "name the file of its authority"),
            (&[("--broker", Some(&by_address))], "for another name"),
            (
                &[("--broker-certificate", None), ("--broker-key", None)],
                "wants a certificate from this side: set `broker_certificate`",
            ),
            (
                &[("--broker-certificate", Some(&stranger)), ("--broker-key", Some(&strangers_key))],
                "refuses the certificate of this side",
            ),
            (&[("--broker-password-file", Some(&wrong))], "check `broker_username` and `broker_password_file`"),
            (
                &[
                    ("--broker", Some(&plain)),
                    ("--broker-ca", None),
                    ("--broker-certificate", None),
                    ("--broker-key", None),
                ],
                "no broker takes this connection",
            ),
        ];
        for (changes, words) in cases {
            says(&but(changes), words).await;
        }
    });
}

#[test]
fn certificates_that_are_over_and_ports_without_tls_are_told_apart() {
    run(60, async {
        let pki = Pki::new();
        let Some(expired) = Mosquitto::start(&pki.settings("expired")).await else { return };
        let Some(plain) = Mosquitto::start("").await else { return };
        let args =
            |port: u16| strings(&["--broker", &format!("mqtts://localhost:{port}"), "--broker-ca", &pki.arg("ca.pem")]);
        says(&args(expired.port), "has expired: renew it").await;
        says(&args(plain.port), "does the broker speak TLS on this port?").await;
    });
}

#[test]
fn files_that_are_no_certificates_are_refused_at_the_start() {
    run(60, async {
        let pki = Pki::new();
        let [ca, certificate, key, text_file, broker_key] =
            ["ca.pem", "client.pem", "client.key", "text", "broker.key"].map(|name| pki.arg(name));
        let nowhere = pki.arg("nowhere");
        for (more, words) in [
            (vec!["--broker-ca", &nowhere], "nowhere (`broker_ca`)"),
            (vec!["--broker-ca", &text_file], "holds no certificate in PEM"),
            (vec!["--broker-certificate", &key, "--broker-key", &key], "holds no certificate in PEM"),
            (vec!["--broker-certificate", &certificate, "--broker-key", &certificate], "holds no private key in PEM"),
            (vec!["--broker-certificate", &certificate, "--broker-key", &broker_key], "does not fit the certificate"),
            (vec!["--broker-certificate", &certificate], "set both or none"),
            (vec!["--broker-key", &key], "set both or none"),
        ] {
            for command in ["serve", "manager", "events"] {
                let mut args = vec![command, "--broker", "mqtts://localhost:1"];
                if !more.contains(&"--broker-ca") {
                    args.extend(["--broker-ca", &ca]);
                }
                args.extend(&more);
                let output = output(&args).await;
                let error = text(&output.stderr);
                assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
                assert!(error.contains(words), "{args:?}: {error}");
            }
        }
        for (args, words) in [
            (vec!["events", "--broker", "mqtt://localhost:1", "--broker-ca", &ca], "write mqtts://"),
            (vec!["events", "--broker", "mqtts://[::1]:1", "--broker-ca", &ca], "write the broker's name"),
            (vec!["events", "--broker-protocol", "4"], "--broker-protocol"),
        ] {
            let output = output(&args).await;
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
            assert!(error.contains(words), "{args:?}: {error}");
        }
    });
}

/// Host and manager over a broker, in this version of MQTT: a race, recorded once.
async fn recorded_over(url: &str, protocol: &str) {
    let (host_dir, manager_dir) = (data_dir(), tempfile::tempdir().unwrap());
    let recorder = manager(manager_dir.path(), url, &["--broker-protocol", protocol]).await;
    ready(&recorder.url).await;
    let host = ["--broker", url, "--manager", "no", "--broker-protocol", protocol];
    let host = Served::start_with_games(host_dir.path(), &host).await;
    let (_, mut ada) = host.playing(SHORT).await;
    ada.event("finished").await;
    host.signal(libc::SIGTERM);
    let (code, rest, error) = host.end().await;
    assert_eq!(code, Some(0), "{error}");
    let last: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
    assert_eq!(last["events_left"], 0, "{protocol}: {last} {error}");
    recorder.signal(libc::SIGTERM);
    assert_eq!(recorder.end().await.0, Some(0));
    assert_eq!((rows(manager_dir.path(), "room.finished"), rows(manager_dir.path(), "host.stopping")), (1, 1));
}

#[test]
fn mosquitto_is_spoken_to_in_the_version_that_is_asked_for() {
    run(120, async {
        for (protocol, logged, other) in [("auto", "(p5,", "(p2,"), ("5", "(p5,", "(p2,"), ("3.1.1", "(p2,", "(p5,")] {
            let Some(broker) = Mosquitto::start("log_type all").await else { return };
            recorded_over(&broker.url(), protocol).await;
            let log = broker.log();
            for client in ["-outbox ", "-control ", "as holeshot-manager-"] {
                let lines: Vec<_> =
                    log.lines().filter(|line| line.contains("New client") && line.contains(client)).collect();
                assert!(!lines.is_empty(), "{protocol} {client}: {log}");
                assert!(
                    lines.iter().all(|line| line.contains(logged) && !line.contains(other)),
                    "{protocol}: {lines:?}"
                );
            }
        }
    });
}

/// How a broker of the old days meets a CONNECT of version 5.
#[derive(Debug, Clone, Copy)]
enum Old {
    /// A refusal in its own version, then the end.
    Says,
    /// The end.
    Closes,
    /// Nothing.
    IsSilent,
}

/// Lets only clients of version 3.1.1 through to a broker. Gives its port.
async fn only_311(broker: u16, old: Old) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                // Type, length (one byte or two), name of the protocol, its version.
                let mut head = [0_u8; 10];
                client.read_exact(&mut head).await.ok()?;
                let level_at = head.windows(4).position(|four| four == b"MQTT")? + 4;
                if head[level_at] == 5 {
                    match old {
                        Old::Says => client.write_all(&[0x20, 2, 0, 1]).await.ok()?,
                        Old::Closes => {}
                        Old::IsSilent => tokio::time::sleep(SOON).await,
                    }
                    return Some(());
                }
                let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, broker)).await.ok()?;
                server.write_all(&head).await.ok()?;
                let _ended = copy_bidirectional(&mut client, &mut server).await;
                Some(())
            });
        }
    });
    port
}

#[test]
fn a_broker_without_version_5_is_spoken_to_in_version_3_1_1() {
    run(120, async {
        let Some(broker) = Mosquitto::start("log_type all").await else { return };
        for old in [Old::Says, Old::Closes, Old::IsSilent] {
            let port = only_311(broker.port, old).await;
            let url = format!("mqtt://127.0.0.1:{port}");
            recorded_over(&url, "auto").await;
            println!("{old:?}: recorded");
            if !matches!(old, Old::IsSilent) {
                let said = says(&strings(&["--broker", &url, "--log", "holeshot=debug"]), "following").await;
                assert!(said.contains("trying 3.1.1"), "{said}");
            }
        }
        assert!(!broker.log().contains("(p5,"), "{}", broker.log());
        let port = only_311(broker.port, Old::Closes).await;
        says(&strings(&["--broker", &format!("mqtt://127.0.0.1:{port}"), "--broker-protocol", "5"]), "no broker takes")
            .await;
    });
}

#[test]
fn a_broker_that_refuses_events_is_told_of_with_what_to_do() {
    run(120, async {
        let settings = |dir: &Path| {
            let users = password_file(dir);
            let rights = dir.join("rights");
            // Everything but the events themselves.
            let lines = "user pit\ntopic readwrite holeshot/v1/+/status\ntopic readwrite holeshot/v1/+/outbox\ntopic readwrite holeshot/v1/+/stored\ntopic read holeshot/#\n";
            std::fs::write(&rights, lines).unwrap();
            #[cfg(unix)]
            std::fs::set_permissions(&rights, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            format!("allow_anonymous false\npassword_file {users}\nacl_file {}\n", rights.display())
        };
        let Some(broker) = Mosquitto::start_with(settings).await else { return };
        let pki = Pki::new();
        let dir = data_dir();
        let (url, password) = (broker.url(), pki.arg("password"));
        let args = ["--broker", &url, "--broker-username", "pit", "--broker-password-file", &password];
        let mut host = Served::start_with_games(dir.path(), &args).await;
        let mut lines = BufReader::new(host.child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let told = timeout(SOON, async {
            while let Ok(Some(line)) = lines.next_line().await {
                said.push_str(&line);
                if line.contains("the broker refused a message")
                    && line.contains("not authorized: give this user the rights")
                {
                    return true;
                }
            }
            false
        });
        assert!(told.await.unwrap_or(false), "{said}");
        // The host plays on, counts, and keeps every event.
        let (_, mut ada) = host.playing(SHORT).await;
        ada.event("finished").await;
        let page = eventually("the figures tell", SOON, async || {
            let page = crate::harness::client()
                .get(format!("{}/metrics", host.url))
                .send()
                .await
                .unwrap()
                .text()
                .await
                .unwrap();
            let value = |name: &str| -> f64 {
                let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_default();
                line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or(-1.0)
            };
            let figures = (
                value("holeshot_events_refused_by_broker_total"),
                value("holeshot_events_published_total"),
                value("holeshot_events_queued "),
            );
            if figures.0 >= 1.0 && figures.1 == 0.0 && figures.2 >= 4.0 {
                Ok(figures)
            } else {
                Err(format!("{figures:?}"))
            }
        })
        .await;
        println!("refused by the broker, published, queued: {page:?}");
        host.child.kill().await.unwrap();

        // With the rights, nothing of it is lost.
        let rights = "user pit\ntopic readwrite holeshot/v1/#\n";
        std::fs::write(broker.dir().join("rights"), rights).unwrap();
        broker.reload();
        let host = Served::start_with_games(dir.path(), &args).await;
        let records = dir.path().to_owned();
        eventually("the events of both starts are recorded", SOON, async || {
            let found = (rows(&records, "host.started"), rows(&records, "room.finished"));
            if found == (2, 1) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        host.signal(libc::SIGTERM);
        let (code, rest, error) = host.end().await;
        assert_eq!(code, Some(0), "{error}");
        let last: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
        assert_eq!(last["events_left"], json!(0), "{last}");
    });
}

/// Rights as the documentation of `holeshot::events` has them, for a host of this id.
fn documented_rights(id: &str) -> String {
    let text = include_str!("../../host/src/events/mod.rs");
    let lines = text.lines().map(|line| line.trim_start_matches("//!").trim());
    let rights: Vec<_> = lines.skip_while(|line| *line != "user pit").take_while(|line| *line != "```").collect();
    assert_eq!(rights.iter().filter(|line| line.starts_with("topic ")).count(), 9, "{rights:?}");
    rights.join("\n").replace("holeshot/v1/pit/", &format!("holeshot/v1/{id}/")) + "\n"
}

/// A message that the broker retains, as a guest hears it.
async fn retained(port: u16, topic: &str, is_wished: impl Fn(&Value) -> bool) -> Value {
    let mut options = rumqttc::MqttOptions::new("looker", "127.0.0.1", port);
    options.set_credentials("guest", "hidden-word");
    let (client, mut events) = rumqttc::AsyncClient::new(options, 8);
    client.subscribe(topic, rumqttc::QoS::AtLeastOnce).await.unwrap();
    let found = timeout(SOON, async {
        loop {
            if let rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) = events.poll().await.unwrap() {
                let payload: Value = serde_json::from_slice(&publish.payload).unwrap();
                if is_wished(&payload) {
                    return payload;
                }
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("nothing as wished on {topic}"))
}

/// What the broker answers to a message of a guest.
async fn answer_to_a_guest(port: u16, topic: &str) -> PubAckReason {
    use rumqttc::v5;
    let mut options = v5::MqttOptions::new("forger", "127.0.0.1", port);
    options.set_credentials("guest", "hidden-word");
    let (client, mut events) = v5::AsyncClient::new(options, 8);
    client.publish(topic, v5::mqttbytes::QoS::AtLeastOnce, false, "{}").await.unwrap();
    let answer = timeout(SOON, async {
        loop {
            if let v5::Event::Incoming(v5::mqttbytes::v5::Packet::PubAck(answer)) = events.poll().await.unwrap() {
                return answer.reason;
            }
        }
    });
    answer.await.expect("the broker answers")
}

#[test]
fn the_documented_rights_are_enough_and_presence_and_receipts_hold_under_them() {
    run(120, async {
        let dir = data_dir();
        // A first start makes the host's id.
        let host = Served::start(dir.path(), &[]).await;
        host.signal(libc::SIGTERM);
        assert_eq!(host.end().await.0, Some(0));
        let identity: Value =
            serde_json::from_slice(&std::fs::read(dir.path().join("identity.json")).unwrap()).unwrap();
        let id = identity["host_id"].as_str().unwrap().to_owned();
        let settings = |dir: &Path| {
            let users = password_file(dir);
            let rights = dir.join("rights");
            std::fs::write(&rights, documented_rights(&id)).unwrap();
            #[cfg(unix)]
            std::fs::set_permissions(&rights, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            format!("allow_anonymous false\npassword_file {users}\nacl_file {}\nlog_type all\n", rights.display())
        };
        let Some(broker) = Mosquitto::start_with(settings).await else { return };
        let pki = Pki::new();
        let (url, password) = (broker.url(), pki.arg("password"));
        let keeper_dir = tempfile::tempdir().unwrap();
        let user = |name| ["--broker-username", name, "--broker-password-file", &password];
        let keeper = manager(keeper_dir.path(), &url, &user("keeper")).await;
        ready(&keeper.url).await;
        let args: Vec<&str> = ["--broker", &url, "--manager", "no"].into_iter().chain(user("pit")).collect();
        let mut host = Served::start_with_games(dir.path(), &args).await;
        let topic = format!("holeshot/v1/{id}/status");
        let online = retained(broker.port, &topic, |status| status["state"] == "online").await;
        let (_, mut ada) = host.playing(SHORT).await;
        ada.event("finished").await;
        let records = keeper_dir.path().to_owned();
        let recorded = async |kind: &str, count: i64| {
            eventually(kind, SOON, async || match rows(&records, kind) {
                found if found == count => Ok(()),
                found => Err(format!("{found}")),
            })
            .await;
        };
        recorded("room.finished", 1).await;
        // Receipts arrive: the outbox is empty.
        eventually("the outbox is empty", SOON, async || {
            let page = crate::harness::client()
                .get(format!("{}/metrics", host.url))
                .send()
                .await
                .unwrap()
                .text()
                .await
                .unwrap();
            let queued =
                page.lines().find(|line| line.starts_with("holeshot_events_queued ")).unwrap_or_default().to_owned();
            if queued.ends_with(" 0") { Ok(()) } else { Err(queued) }
        })
        .await;
        // A host that is killed is reported by its last will, with the start that it belongs to.
        host.child.kill().await.unwrap();
        let offline = retained(broker.port, &topic, |status| status["state"] == "offline").await;
        assert_eq!(offline["boot"], online["boot"]);
        let host = Served::start_with_games(dir.path(), &args).await;
        let again = retained(broker.port, &topic, |status| status["state"] == "online").await;
        assert_ne!(again["boot"], online["boot"]);
        host.signal(libc::SIGTERM);
        let (code, rest, error) = host.end().await;
        assert_eq!(code, Some(0), "{error}");
        let last: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
        assert_eq!(last["events_left"], json!(0), "{last}");
        assert!(!error.contains("ERROR") && !error.contains("refused"), "{error}");
        recorded("host.stopping", 1).await;
        retained(broker.port, &topic, |status| status["state"] == "offline").await;
        let page = keeper.text("/metrics").await;
        assert!(page.contains("holeshot_manager_subscribed 1"), "{page}");

        // A guest hears, and is not heard.
        let guest: Vec<String> = strings(&["--broker", &url]).into_iter().chain(strings(&user("guest"))).collect();
        says(&guest, "following").await;
        let denied = broker.log().lines().filter(|line| line.contains("Denied")).map(str::to_owned).collect::<Vec<_>>();
        assert!(denied.is_empty(), "{denied:?}");
        for topic in ["status", "stored", "outbox", "events/host/host.stopping"] {
            let refused = answer_to_a_guest(broker.port, &format!("holeshot/v1/{id}/{topic}")).await;
            assert_eq!(refused, PubAckReason::NotAuthorized, "{topic}");
        }
        keeper.signal(libc::SIGTERM);
        assert_eq!(keeper.end().await.0, Some(0));
    });
}
