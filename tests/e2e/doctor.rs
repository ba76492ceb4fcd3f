//! `holeshot doctor` on folders and machines that are well, and on those that are not, through the real command. The words of each judgement are
//! tested beside it, in `host/src/doctor`.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::command::{FREE_PORTS, Served, output, text};
use crate::harness::{SOON, data_dir, run};
use crate::modules_made::SHORT;

/// What the doctor says of a folder: its exit code, and each finding by its check.
struct Said {
    code: i32,
    findings: Vec<Value>,
}

impl Said {
    fn of(output: &std::process::Output) -> Self {
        let (said, error) = (text(&output.stdout), text(&output.stderr));
        let report: Value = serde_json::from_str(&said).unwrap_or_else(|problem| panic!("{problem}: {said} {error}"));
        let findings = report["findings"].as_array().unwrap().clone();
        let problems = findings.iter().filter(|finding| finding["verdict"] == "problem").count();
        assert_eq!(report["problems"], problems);
        let code = output.status.code().unwrap();
        assert_eq!(code, i32::from(problems > 0), "{report:#} {error}");
        assert!(!error.contains("panicked"), "{error}");
        Self { code, findings }
    }

    /// The findings of a check whose words are these.
    #[track_caller]
    fn says(&self, check: &str, verdict: &str, words: &[&str]) {
        let fits = |finding: &&Value| {
            let text = format!("{} {}", finding["found"], finding["advice"]);
            finding["check"] == check && finding["verdict"] == verdict && words.iter().all(|words| text.contains(words))
        };
        assert!(
            self.findings.iter().any(|finding| fits(&finding)),
            "no {verdict} of {check} with {words:?} in {:#}",
            Value::from(self.findings.clone())
        );
    }
}

async fn doctor(dir: &Path, more: &[&str]) -> Said {
    let args = ["doctor", "--json", "--data-dir", dir.to_str().unwrap()];
    let ports: &[&str] = if more.contains(&"--http-listen") { &[] } else { &FREE_PORTS };
    Said::of(&output(&[&args[..], ports, more].concat()).await)
}

/// A folder that a host has used, and that nobody uses now.
async fn used() -> tempfile::TempDir {
    let dir = data_dir();
    let served = Served::start_with_games(dir.path(), &["--linger-s", "0"]).await;
    let (_, mut ada) = served.playing(SHORT).await;
    ada.event("finished").await;
    ada.bye().await;
    served.signal(libc::SIGTERM);
    assert_eq!(served.end().await.0, Some(0));
    dir
}

/// Every file with its bytes and when it was changed.
fn contents(dir: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files
        .map(|entry| {
            let changed = entry.metadata().unwrap().modified().unwrap();
            (entry.file_name().into_string().unwrap(), (std::fs::read(entry.path()).unwrap(), changed))
        })
        .collect()
}

#[test]
fn a_folder_that_is_well_has_no_problems_and_is_not_touched() {
    run(90, async {
        let dir = used().await;
        let before = contents(dir.path());
        let said = doctor(dir.path(), &[]).await;
        assert_eq!(said.code, 0, "{:#?}", said.findings);
        assert!(contents(dir.path()) == before, "the doctor changed {:?}", contents(dir.path()).keys());
        said.says("data folder", "ok", &["no host runs on it"]);
        said.says("records", "ok", &["whole, layout"]);
        said.says("outbox", "ok", &["whole"]);
        said.says("waiting", "ok", &["no event waits"]);
        said.says("secrets", "ok", &["admin-token", "600"]);
        said.says("secrets", "ok", &["identity.json"]);
        said.says("disk", "ok", &["are free"]);
        said.says("journals", "ok", &["1 with"]);
        said.says("clock and records", "ok", &["old"]);
        said.says("addresses", "warning", &["players elsewhere cannot come"]);
        said.says("memory mappings", "ok", &["vm.max_map_count"]);
        said.says("sealing", "ok", &["same bytes"]);
        for check in ["open files", "memory", "receive buffer", "clock"] {
            assert!(said.findings.iter().any(|finding| finding["check"] == check), "{check}");
        }
        let timer = said.findings.iter().find(|finding| finding["check"] == "timer").unwrap();
        println!("{timer}");
        assert!(timer["found"].as_str().unwrap().starts_with("100 deadlines of 20 ms came late by "), "{timer}");

        // A host that runs is asked; of its ports it is known whose they are.
        let served = Served::start(dir.path(), &[]).await;
        let (http, udp, mqtt) = (&served.listen["http"], &served.listen["udp"], &served.listen["mqtt"]);
        let address = |value: &Value| value.as_str().unwrap().to_owned();
        let (http, udp, mqtt) = (address(http), address(udp), address(mqtt));
        let same = ["--http-listen", &http, "--udp-listen", &udp, "--mqtt-listen", &mqtt];
        let said = doctor(dir.path(), &same).await;
        assert_eq!(said.code, 0, "{:#?}", said.findings);
        said.says("data folder", "ok", &["a host runs on it"]);
        said.says("port", "ok", &[&http, "a host runs"]);
        said.says("port", "ok", &[&udp, "UDP", "a host runs"]);
        said.says("host", "ok", &["takes players", "/readyz"]);
        // For people, and as a command that a script may call.
        let other = data_dir();
        let args = [&["doctor", "--data-dir", other.path().to_str().unwrap()][..], &same].concat();
        let people = output(&args).await;
        let shown = text(&people.stdout);
        assert_eq!(people.status.code(), Some(1), "{shown}");
        let line = shown.lines().position(|line| line.starts_with("problem  port") && line.contains(&http)).unwrap();
        assert!(shown.lines().nth(line + 1).unwrap().trim_start().starts_with("-> `ss -tlnp"), "{shown}");
        served.signal(libc::SIGTERM);
        assert_eq!(served.end().await.0, Some(0));
    });
}

#[test]
fn what_is_wrong_is_found_and_says_what_to_do() {
    run(120, async {
        let dir = used().await;
        // Ports that other programs have.
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (tcp, udp_address) =
            (tcp.local_addr().map(|address| (tcp, address.to_string())).unwrap(), udp.local_addr());
        let udp_address = udp_address.unwrap().to_string();
        let ports = ["--http-listen", &tcp.1, "--udp-listen", &udp_address, "--mqtt-listen", "192.0.2.1:1883"];
        let said = doctor(dir.path(), &ports).await;
        said.says("port", "problem", &[&tcp.1, "TCP", "taken by another program", "ss -tlnp"]);
        said.says("port", "problem", &[&udp_address, "UDP", "ss -ulnp"]);
        said.says("port", "problem", &["192.0.2.1:1883", "no address of this machine"]);
        drop((tcp, udp));

        // A token that everybody reads, a clock that was set back, a certificate and a broker that are not there, a module that is gone.
        let token = dir.path().join("admin-token");
        let chmod = |mode| std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
        chmod(0o644);
        let records = dir.path().join("records.sqlite3");
        let newest = std::fs::metadata(&records).unwrap().modified().unwrap();
        let touch = |time| std::fs::File::options().write(true).open(&records).unwrap().set_modified(time).unwrap();
        touch(SystemTime::now() + Duration::from_secs(7_300));
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let broker = format!("mqtt://{closed}");
        let certificate = ["--tls-certificate", "/nowhere/host.pem", "--tls-key", "/nowhere/host.key"];
        let others = ["--broker", &broker, "--module", "/nowhere/rules.wasm"];
        let said = doctor(dir.path(), &[&certificate[..], &others].concat()).await;
        said.says("secrets", "problem", &["admin-token has mode 644", "chmod 600"]);
        said.says("clock and files", "problem", &["2 hours in the future", "set back"]);
        said.says("certificate", "problem", &["/nowhere/host.pem"]);
        said.says("broker", "problem", &[&closed.to_string(), "outbox"]);
        said.says("modules", "problem", &["/nowhere/rules.wasm"]);
        chmod(0o600);
        touch(newest);

        // Too few files for a host.
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n 64; exec \"$0\" doctor --json \"$@\"", env!("CARGO_BIN_EXE_holeshot-under-test")]);
        shell.arg("--data-dir").arg(dir.path()).args(FREE_PORTS);
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let said = Said::of(&timeout(SOON * 2, shell.output()).await.expect("it ends").unwrap());
        said.says("open files", "problem", &["at most 64", "LimitNOFILE"]);
        // More rooms than the system has mappings for, and a reserve that leaves no memory.
        let said = doctor(dir.path(), &["--rooms-max", "30000", "--memory-reserve-mib", "1048576"]).await;
        said.says("memory", "problem", &["not one opens"]);
        let limit: u64 = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
        if limit < 100_000 {
            said.says("memory mappings", "problem", &["sysctl -w vm.max_map_count="]);
        }

        // A page of the records that is something else.
        let mut bytes = std::fs::read(&records).unwrap();
        let page = 4_096;
        assert!(bytes.len() > 3 * page);
        bytes[page..2 * page].fill(0xa5);
        std::fs::write(&records, &bytes).unwrap();
        let said = doctor(dir.path(), &[]).await;
        said.says("records", "problem", &["damaged", "holeshot restore"]);
        std::fs::write(
            &records,
            "something else altogether, in a file of that name, and longer than a header of a database",
        )
        .unwrap();
        let said = doctor(dir.path(), &[]).await;
        said.says("records", "problem", &["no database of a host"]);
        // Nothing there, and no folder.
        let said = doctor(&dir.path().join("none"), &[]).await;
        said.says("data folder", "warning", &["is not there"]);
        assert_eq!(said.code, 0);
        let said = doctor(&records, &[]).await;
        said.says("data folder", "problem", &["is no folder"]);
    });
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_told_and_waited_for_by_nobody() {
    run(90, async {
        let host = [
            "holeshot.lock",
            "outbox.lock",
            "outbox.sqlite3",
            "outbox.sqlite3-wal",
            "records.sqlite3",
            "identity.json",
        ];
        for name in host.into_iter().chain(["admin-token"]) {
            let dir = data_dir();
            let pipe = dir.path().join(name);
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            // Nobody opens its other end: whoever opens it never comes back.
            let said = doctor(dir.path(), &[]).await;
            match name {
                "holeshot.lock" | "outbox.lock" => {}
                "outbox.sqlite3-wal" => said.says("outbox", "ok", &["is not there"]),
                "outbox.sqlite3" => {
                    said.says("outbox", "problem", &["outbox.sqlite3 is not a regular file", "move it away"])
                }
                "records.sqlite3" => said.says("records", "problem", &["records.sqlite3 is not a regular file"]),
                name => said.says("keys", "problem", &[name, "is no file"]),
            }
            // A start takes seconds: one for each way of opening a file.
            if !["holeshot.lock", "outbox.sqlite3", "admin-token"].contains(&name) {
                continue;
            }
            let serve = [&["serve", "--data-dir", dir.path().to_str().unwrap()], &FREE_PORTS[..]].concat();
            let ended = output(&serve).await;
            let error = text(&ended.stderr);
            assert_ne!(ended.status.code(), Some(0), "{name}: {error}");
            assert!(error.contains(name) && error.contains("not a regular file"), "{name}: {error}");
        }
    });
}
