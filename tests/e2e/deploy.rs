//! The files in `host/deploy`: settings that a host takes, and units that systemd takes. What the README says to do with them was tried by hand.

use std::path::Path;
use std::process::Command;

use holeshot::config::Settings;

use crate::harness::tell;

fn deploy() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../host/deploy"))
}

#[test]
fn the_settings_are_those_of_a_host() {
    let settings = Settings::read(&deploy().join("holeshot.toml")).unwrap();
    let config = settings.resolve().unwrap();
    assert_eq!((config.http_listen.port(), config.udp_listen.port()), (443, 7700));
    assert_eq!(config.data_dir, Path::new("/var/lib/holeshot/data"));
    assert!(config.tls.is_some() && config.broker.is_none(), "{config:?}");
    // systemd kills a host that is not done by then; 40 s are what a stop may take besides the races.
    let unit = std::fs::read_to_string(deploy().join("holeshot.service")).unwrap();
    let stop_s = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    assert!(stop_s.parse::<u32>().unwrap() >= config.drain_wait_s + 40, "{stop_s}");
    // What is only shown there is right, too.
    let text = std::fs::read_to_string(deploy().join("holeshot.toml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (path, password) = (dir.path().join("holeshot.toml"), dir.path().join("password"));
    std::fs::write(&password, "secret\n").unwrap();
    let text = text.replace("# broker", "broker").replace("/etc/holeshot/broker-password", password.to_str().unwrap());
    std::fs::write(&path, text).unwrap();
    let broker = Settings::read(&path).unwrap().resolve().unwrap().broker.unwrap();
    assert_eq!((broker.host.as_str(), broker.username.as_deref()), ("broker.example.org", Some("holeshot")));
}

#[test]
fn the_units_are_those_of_systemd() {
    let dir = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for entry in std::fs::read_dir(deploy()).unwrap() {
        let from = entry.unwrap().path();
        if from.extension().is_some_and(|extension| extension == "service" || extension == "timer") {
            // It looks whether the program is there, which it is not on every machine.
            let text = std::fs::read_to_string(&from).unwrap();
            assert!(from.ends_with("holeshot-backup.timer") || text.contains("/usr/local/bin/holeshot "), "{from:?}");
            let to = dir.path().join(from.file_name().unwrap());
            std::fs::write(&to, text.replace("/usr/local/bin/holeshot", env!("CARGO_BIN_EXE_holeshot-under-test")))
                .unwrap();
            units.push(to);
        }
    }
    assert_eq!(units.len(), 3);
    match Command::new("systemd-analyze").arg("verify").args(&units).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && said.is_empty(), "{said}");
        }
        Err(error) => {
            assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "systemd-analyze cannot be started ({error})");
            tell!("SKIPPED: systemd-analyze cannot be started ({error}); install systemd to run this test");
        }
    }
}
