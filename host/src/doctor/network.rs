//! What others reach: ports, addresses, the certificate, the broker, and the files that the settings name.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Finding, Verdict};
use crate::clock::unix_ms;
use crate::config::{Config, OpenDoors};
use crate::doors::tickets::keys::KeySet;
use crate::events::follow::{Followed, Follower};
use crate::files::is_held;
use crate::server::LOCK_FILE;
use crate::tls::Pair;

/// How long a running host may take to answer, and a broker.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Days before its end at which a certificate should have been renewed: certbot does it 30 days before.
const CERTIFICATE_DAYS_LEAST: u64 = 20;
/// Names of a certificate that are told.
const NAMES_SHOWN_MAX: usize = 5;

pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let is_running = is_held(&config.data_dir.join(LOCK_FILE)) == Some(true);
    let mut findings = Vec::new();
    let mut doors = vec![
        Door { what: "HTTP", flag: "http_listen", address: config.http_listen, is_udp: false },
        Door { what: "datagrams", flag: "udp_listen", address: config.udp_listen, is_udp: true },
    ];
    if config.broker.is_none() {
        doors.push(Door { what: "MQTT", flag: "mqtt_listen", address: config.mqtt_listen, is_udp: false });
    }
    for door in &doors {
        findings.push(judge_port(door, door.bind().map_err(|error| error.kind()), is_running));
    }
    if is_running {
        findings.push(ready(config).await);
    }
    findings.push(judge_reach(config.http_listen.ip(), config.udp_listen.ip(), config.tls.is_some()));
    if config.broker.is_none() {
        findings.extend(judge_mqtt(config.mqtt_listen.ip()));
    }
    findings.push(judge_doors(config.open_doors, config.http_listen.ip()));
    if !config.ticket_keys.is_empty() {
        let read = KeySet::read(&config.ticket_keys).map(|keys| keys.len()).map_err(|error| error.to_string());
        findings.push(judge_keys(read));
    }
    if let Some(pair) = &config.tls {
        findings.push(certificate(pair));
    }
    findings.extend(broker(config).await);
    for (setting, path) in config.modules.iter().map(|path| ("module", path)) {
        if let Err(error) = crate::files::open_regular(path) {
            let found = format!("{}, which `{setting}` names, cannot be read: {error}", path.display());
            findings.push(Finding::problem("modules", found, "correct the setting; a host does not start without it"));
        }
    }
    findings
}

/// A place where a host listens.
struct Door {
    what: &'static str,
    flag: &'static str,
    address: SocketAddr,
    is_udp: bool,
}

impl Door {
    /// Takes the port for a moment.
    fn bind(&self) -> std::io::Result<()> {
        if self.is_udp { UdpSocket::bind(self.address).map(drop) } else { TcpListener::bind(self.address).map(drop) }
    }
}

fn judge_port(door: &Door, bound: Result<(), ErrorKind>, is_running: bool) -> Finding {
    const CHECK: &str = "port";
    let Door { what, flag, address, is_udp } = door;
    let (carrier, option) = if *is_udp { ("UDP", "u") } else { ("TCP", "t") };
    let place = format!("{address} ({what}, {carrier})");
    if address.port() == 0 {
        return Finding::ok(CHECK, format!("{what}: the system picks a free one"));
    }
    match bound {
        Ok(()) if is_running => Finding::warning(
            CHECK,
            format!("{place} is free, although a host runs on this data folder"),
            "that host has other settings: give the doctor the same ones",
        ),
        Ok(()) => Finding::ok(CHECK, format!("{place} is free")),
        Err(ErrorKind::AddrInUse) if is_running => {
            Finding::ok(CHECK, format!("{place} is taken, and a host runs on this data folder"))
        }
        Err(ErrorKind::AddrInUse) => Finding::problem(
            CHECK,
            format!("{place} is taken by another program"),
            format!(
                "`ss -{option}lnp 'sport = :{}'` names it; end it, or choose another port with {flag}",
                address.port()
            ),
        ),
        Err(ErrorKind::PermissionDenied) if is_running => {
            Finding::ok(CHECK, format!("{place} cannot be tried by this user; a host runs on this data folder"))
        }
        // The service may have the right that the one who calls the doctor has not.
        Err(ErrorKind::PermissionDenied) => Finding::warning(
            CHECK,
            format!("{place} may not be used by this user, so a host started like this does not start"),
            "a systemd unit gives the right with AmbientCapabilities=CAP_NET_BIND_SERVICE; without it choose a port from 1024 on",
        ),
        Err(ErrorKind::AddrNotAvailable) => Finding::problem(
            CHECK,
            format!("{place} is no address of this machine"),
            format!("`ip address` shows those that it has; 0.0.0.0 means all of them ({flag})"),
        ),
        Err(kind) => {
            Finding::problem(CHECK, format!("{place} cannot be used: {kind}"), format!("choose another with {flag}"))
        }
    }
}

async fn ready(config: &Config) -> Finding {
    let mut address = config.http_listen;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}/readyz");
    // The certificate is for the name that players use. Nothing secret is asked or told.
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_MAX).danger_accept_invalid_certs(true).build();
    let status = match client {
        Ok(client) => client.get(&url).send().await.map(|answer| answer.status().as_u16()),
        Err(error) => Err(error),
    };
    judge_ready(&url, status.map_err(|error| reason(&error)))
}

/// What is behind an error, which by itself says only that a request failed.
fn reason(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn judge_ready(url: &str, status: Result<u16, String>) -> Finding {
    const CHECK: &str = "host";
    match status {
        Ok(200) => Finding::ok(CHECK, format!("it runs and takes players ({url})")),
        Ok(503) => Finding::warning(
            CHECK,
            format!("it runs and takes no new rooms ({url} says 503)"),
            "it is being stopped; its log says why",
        ),
        Ok(status) => {
            let found = format!("{url} answers {status}, which no host does");
            Finding::warning(
                CHECK,
                found,
                "another program may have the port: give the doctor the settings of the host",
            )
        }
        Err(error) => {
            let found = format!("it runs, but {url} does not answer: {error}");
            Finding::problem(
                CHECK,
                found,
                "look at its log; if it listens elsewhere, give the doctor the same settings",
            )
        }
    }
}

fn judge_reach(http: IpAddr, udp: IpAddr, is_tls: bool) -> Finding {
    const CHECK: &str = "addresses";
    match (http.is_loopback(), udp.is_loopback()) {
        (true, true) => Finding::warning(
            CHECK,
            "the host listens on this machine's own addresses: players elsewhere cannot come",
            "for others, set http_listen and udp_listen to 0.0.0.0:7700, with a certificate; for this machine alone it is right",
        ),
        (true, false) => Finding::ok(CHECK, "HTTP on this machine alone, as behind a proxy; datagrams from everywhere"),
        (false, true) => Finding::warning(
            CHECK,
            "HTTP is reached from elsewhere, datagrams are not: players elsewhere play over the WebSocket alone",
            "set udp_listen to 0.0.0.0:7700",
        ),
        (false, false) if !is_tls => Finding::warning(
            CHECK,
            "the host is reached from elsewhere and has no certificate: tickets and the admin token can be read on the way",
            "set tls_certificate and tls_key; within a private network it may be right",
        ),
        (false, false) => Finding::ok(CHECK, "reached from elsewhere, with TLS"),
    }
}

/// Who may open rooms and get tickets.
fn judge_doors(setting: OpenDoors, http: IpAddr) -> Finding {
    const CHECK: &str = "doors";
    match (setting, http.is_loopback()) {
        (OpenDoors::Yes, false) => Finding::warning(
            CHECK,
            "open_doors is yes: everybody who reaches the host opens rooms and gets any player's ticket",
            "set open_doors to auto, and give players their tickets by `holeshot ticket` or a matchmaker",
        ),
        (OpenDoors::Yes | OpenDoors::Auto, true) => {
            Finding::ok(CHECK, "open to everybody on this machine, who alone reaches it")
        }
        (OpenDoors::Auto, false) | (OpenDoors::No, _) => {
            Finding::ok(CHECK, "rooms and tickets need the admin token, or a matchmaker's ticket")
        }
    }
}

fn judge_keys(read: Result<usize, String>) -> Finding {
    const CHECK: &str = "ticket keys";
    match read {
        Ok(count) => Finding::ok(CHECK, format!("{count} keys of matchmakers")),
        Err(reason) => {
            Finding::problem(CHECK, reason, "a host does not start with it; one that runs keeps those before")
        }
    }
}

fn judge_mqtt(ip: IpAddr) -> Option<Finding> {
    (!ip.is_loopback()).then(|| {
        Finding::warning(
            "addresses",
            "the embedded broker is reached from elsewhere: everybody may read every event",
            "set mqtt_listen to 127.0.0.1:1883, or close the port in the firewall, unless that is what it is for",
        )
    })
}

fn certificate(pair: &Pair) -> Finding {
    const CHECK: &str = "certificate";
    let now_s = unix_ms() / 1_000;
    match pair.load(now_s) {
        Ok(loaded) => {
            let names = names(pair);
            let finding = judge_certificate(&names, loaded.not_after_s.saturating_sub(now_s) / 86_400);
            if finding.verdict == Verdict::Ok { others_read(pair).unwrap_or(finding) } else { finding }
        }
        Err(error) => Finding::problem(
            CHECK,
            error.to_string(),
            "a host does not start with it; one that runs keeps the one before",
        ),
    }
}

/// The names that the certificate is for (RFC 5280, subject alternative name).
fn names(pair: &Pair) -> Vec<String> {
    let Ok(chain) = CertificateDer::pem_file_iter(&pair.certificate) else { return Vec::new() };
    let Some(Ok(leaf)) = chain.into_iter().next() else { return Vec::new() };
    let Ok((_, parsed)) = X509Certificate::from_der(&leaf) else { return Vec::new() };
    let Ok(Some(alternative)) = parsed.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| IpAddr::from(ip).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| IpAddr::from(ip).to_string()),
        },
        _ => None,
    };
    alternative.value.general_names.iter().filter_map(name).take(NAMES_SHOWN_MAX).collect()
}

fn judge_certificate(names: &[String], days: u64) -> Finding {
    const CHECK: &str = "certificate";
    if names.is_empty() {
        let found = format!("it fits its key and ends in {days} days, but is for no name");
        return Finding::warning(
            CHECK,
            found,
            "clients compare the name that they connect to (subjectAltName): get one for the host's name",
        );
    }
    let found = format!("for {}, fits its key, ends in {days} days", names.join(", "));
    if days < CERTIFICATE_DAYS_LEAST {
        let advice = "renew it at its authority; if certbot does that, see `systemctl list-timers` and `certbot renew --dry-run`";
        return Finding::warning(CHECK, found, advice);
    }
    Finding::ok(CHECK, found)
}

/// A key that every user of the machine reads is nobody's.
fn others_read(pair: &Pair) -> Option<Finding> {
    #[cfg(unix)]
    {
        let metadata = std::fs::metadata(&pair.key).ok()?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        (mode & 0o004 != 0).then(|| {
            let found = format!("its key {} can be read by every user of this machine", pair.key.display());
            Finding::problem("certificate", found, "chmod 640, with the group of the host's user")
        })
    }
    #[cfg(not(unix))]
    {
        let _no_modes = pair;
        None
    }
}

/// Whether the broker elsewhere takes a subscription.
async fn broker(config: &Config) -> Option<Finding> {
    let access = config.broker.clone()?;
    let place = format!("{}:{}", access.host, access.port);
    let mut follower = Follower::start(access);
    let heard = tokio::time::timeout(ANSWER_MAX, async {
        loop {
            match follower.next().await {
                Some(Followed::Subscribed) => return Ok(()),
                Some(Followed::Unreachable { reason }) => return Err(reason),
                Some(Followed::Refused) => return Err("it refuses the subscription".to_owned()),
                Some(_) => {}
                None => return Err("the connection ended".to_owned()),
            }
        }
    });
    let heard = heard.await.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_MAX.as_secs())));
    Some(judge_broker(&place, heard))
}

fn judge_broker(place: &str, heard: Result<(), String>) -> Finding {
    const CHECK: &str = "broker";
    match heard {
        Ok(()) => Finding::ok(CHECK, format!("{place} takes this host's subscription")),
        Err(reason) => Finding::problem(
            CHECK,
            format!("{place}: {reason}"),
            "see that it runs and that the settings of `broker` are right. Until then events wait in the outbox",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::says;
    use super::*;

    #[test]
    fn a_port_is_free_taken_forbidden_or_no_port_of_ours() {
        let address = "127.0.0.1:7700".parse().unwrap();
        let door = Door { what: "HTTP", flag: "http_listen", address, is_udp: false };
        says(&judge_port(&door, Ok(()), false), Verdict::Ok, &["127.0.0.1:7700 (HTTP, TCP) is free"]);
        says(&judge_port(&door, Ok(()), true), Verdict::Warning, &["the same ones"]);
        says(&judge_port(&door, Err(ErrorKind::AddrInUse), true), Verdict::Ok, &["a host runs"]);
        let taken = judge_port(&door, Err(ErrorKind::AddrInUse), false);
        says(&taken, Verdict::Problem, &["ss -tlnp 'sport = :7700'", "http_listen"]);
        says(&judge_port(&door, Err(ErrorKind::PermissionDenied), false), Verdict::Warning, &["CAP_NET_BIND_SERVICE"]);
        says(&judge_port(&door, Err(ErrorKind::PermissionDenied), true), Verdict::Ok, &["a host runs"]);
        says(&judge_port(&door, Err(ErrorKind::AddrNotAvailable), false), Verdict::Problem, &["ip address"]);
        let any = Door { address: "127.0.0.1:0".parse().unwrap(), is_udp: true, ..door };
        says(&judge_port(&any, Ok(()), true), Verdict::Ok, &["the system picks"]);
    }

    #[test]
    fn a_host_that_runs_should_answer() {
        let judge = |status| judge_ready("http://h/readyz", status);
        says(&judge(Ok(200)), Verdict::Ok, &["takes players"]);
        says(&judge(Ok(503)), Verdict::Warning, &["takes no new rooms"]);
        says(&judge(Ok(404)), Verdict::Warning, &["answers 404"]);
        says(&judge(Err("refused".into())), Verdict::Problem, &["refused", "log"]);
    }

    #[test]
    fn addresses_are_judged_by_who_reaches_them() {
        let (here, all): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "0.0.0.0".parse().unwrap());
        says(&judge_reach(here, here, false), Verdict::Warning, &["players elsewhere cannot come"]);
        says(&judge_reach("::1".parse().unwrap(), here, true), Verdict::Warning, &["cannot come"]);
        says(&judge_reach(here, all, false), Verdict::Ok, &["behind a proxy"]);
        says(&judge_reach(all, here, true), Verdict::Warning, &["WebSocket alone"]);
        says(&judge_reach(all, all, false), Verdict::Warning, &["tls_certificate"]);
        says(&judge_reach(all, all, true), Verdict::Ok, &["with TLS"]);
        says(&judge_doors(OpenDoors::Auto, here), Verdict::Ok, &["open to everybody on this machine"]);
        says(&judge_doors(OpenDoors::Auto, all), Verdict::Ok, &["need the admin token"]);
        says(&judge_doors(OpenDoors::Yes, all), Verdict::Warning, &["everybody who reaches", "holeshot ticket"]);
        says(&judge_keys(Ok(2)), Verdict::Ok, &["2 keys"]);
        says(&judge_keys(Err("k.jwk: no key".into())), Verdict::Problem, &["k.jwk"]);
        assert_eq!(judge_mqtt(here), None);
        says(&judge_mqtt(all).unwrap(), Verdict::Warning, &["every event", "mqtt_listen"]);
        says(&judge_broker("b:1883", Ok(())), Verdict::Ok, &["b:1883"]);
        says(&judge_broker("b:1883", Err("refused".into())), Verdict::Problem, &["b:1883: refused", "outbox"]);
    }

    #[test]
    fn a_certificate_is_judged_by_its_names_and_its_end() {
        says(
            &judge_certificate(&["a.example".into(), "b.example".into()], 80),
            Verdict::Ok,
            &["a.example, b.example", "80 days"],
        );
        says(&judge_certificate(&["a.example".into()], 19), Verdict::Warning, &["19 days", "certbot"]);
        says(&judge_certificate(&[], 80), Verdict::Warning, &["no name"]);
        let dir = tempfile::tempdir().unwrap();
        let pair = Pair { certificate: dir.path().join("c.pem"), key: dir.path().join("k.pem") };
        says(&certificate(&pair), Verdict::Problem, &["c.pem", "does not start"]);
        let made = rcgen::generate_simple_self_signed(["race.example".to_owned(), "192.0.2.7".to_owned()]).unwrap();
        std::fs::write(&pair.certificate, made.cert.pem()).unwrap();
        std::fs::write(&pair.key, made.signing_key.serialize_pem()).unwrap();
        let readable = |mode| {
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(&pair.key, permissions).unwrap();
        };
        readable(0o600);
        says(&certificate(&pair), Verdict::Ok, &["race.example, 192.0.2.7", "fits its key"]);
        readable(0o644);
        says(&certificate(&pair), Verdict::Problem, &["k.pem", "chmod 640"]);
    }
}
