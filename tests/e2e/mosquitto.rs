//! A real mosquitto for tests, in a process of its own. Without the program a test says that it was skipped; where CI is set to
//! true it fails instead, so that it cannot go missing unseen.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::faults::signal;
use crate::harness::{SOON, eventually, tell};

/// Debian puts servers where users do not look.
const PROGRAMS: [&str; 2] = ["mosquitto", "/usr/sbin/mosquitto"];

/// A broker on a port of its own.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    dir: TempDir,
    child: Option<Child>,
}

/// The program, if it is there.
fn program() -> Option<&'static str> {
    let found = PROGRAMS.into_iter().find(|name| {
        std::process::Command::new(name).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    });
    if found.is_none() {
        assert!(
            !std::env::var("CI").is_ok_and(|ci| ci == "true"),
            "mosquitto cannot be started; install Debian's mosquitto"
        );
        tell!("SKIPPED: mosquitto cannot be started; install mosquitto to run this test");
    }
    found
}

impl Mosquitto {
    /// Starts a broker that lets everybody do everything, with these lines in its settings besides. None if the program is not there.
    pub(crate) async fn start(settings: &str) -> Option<Self> {
        Self::start_with(|_| format!("allow_anonymous true\n{settings}")).await
    }

    /// Starts a broker with settings that may name files in its folder.
    pub(crate) async fn start_with(settings: impl FnOnce(&Path) -> String) -> Option<Self> {
        program()?;
        let dir = tempfile::tempdir().unwrap();
        // Free at the moment; nobody else asks the system for this one soon.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut text = format!("listener {port} 127.0.0.1\npersistence false\n");
        let _ = writeln!(text, "{}", settings(dir.path()));
        std::fs::write(dir.path().join("mosquitto.conf"), text).unwrap();
        let mut broker = Self { port, dir, child: None };
        broker.up().await;
        Some(broker)
    }

    /// Starts the process, on the same port as before.
    pub(crate) async fn up(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        let child = Command::new(program().unwrap())
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let log = self.log_path();
        eventually("mosquitto listens", SOON, async || match TcpStream::connect(address) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error}; {}", std::fs::read_to_string(&log).unwrap_or_default())),
        })
        .await;
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self) {
        self.child.take().expect("it runs").kill().await.unwrap();
    }

    pub(crate) fn signal(&self, number: libc::c_int) {
        signal(self.child.as_ref().expect("it runs"), number);
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("mosquitto.log")
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Lets it read its users and rights again.
    pub(crate) fn reload(&self) {
        let pid = self.child.as_ref().and_then(Child::id).expect("it runs");
        // SAFETY: kill takes two numbers and touches no memory. The process is a child that was not waited for, so the number is still its own.
        #[allow(unsafe_code)]
        let sent = unsafe { libc::kill(libc::pid_t::try_from(pid).unwrap(), libc::SIGHUP) };
        assert_eq!(sent, 0);
    }

    /// `mqtt://…`.
    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}
