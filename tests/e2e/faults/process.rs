//! Hosts and managers as processes that can be killed, stopped and started again, with their logs in files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::command::holeshot;
use crate::harness::{SOON, tell};

/// Says that a test, or a part of it, did not run for want of something real. Where CI is set to true it has to be there.
pub(crate) fn skipped(what: &str, package: &str) {
    assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{what}; install Debian's {package}");
    tell!("SKIPPED: {what}; install {package} to run this test");
}

/// Sends a signal to a child that was not waited for.
pub(crate) fn signal(child: &Child, number: libc::c_int) {
    let pid = libc::pid_t::try_from(child.id().unwrap()).unwrap();
    // SAFETY: kill takes two numbers and touches no memory. The process is a child that was not waited for, so the number is still its own.
    #[allow(unsafe_code)]
    let sent = unsafe { libc::kill(pid, number) };
    assert_eq!(sent, 0);
}

/// A command that can be started again and again, and the process that runs at the moment.
#[derive(Debug)]
pub(crate) struct Process {
    /// What starts the program: nothing, or a program that gives it other surroundings.
    starter: Vec<String>,
    args: Vec<String>,
    environment: BTreeMap<String, String>,
    log: PathBuf,
    child: Option<Child>,
    /// What it said when it had started.
    said: Value,
}

impl Process {
    /// Starts `holeshot` with these arguments; its log goes to that file. Waits until it says on its output that it runs.
    pub(crate) async fn start(starter: &[String], args: &[&str], log: &Path, environment: &[(&str, &str)]) -> Self {
        let mut process = Self {
            starter: starter.to_vec(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            log: log.to_owned(),
            child: None,
            said: Value::Null,
        };
        process.restart().await;
        process
    }

    pub(crate) async fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let mut command: Command = holeshot(&args);
        if let [starter, of_starter @ ..] = self.starter.as_slice() {
            let whole = command.as_std();
            let rest = [whole.get_program()].into_iter().chain(whole.get_args());
            let mut started = Command::new(starter);
            started.args(of_starter).args(rest).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
            for (name, value) in whole.get_envs() {
                if value.is_none() {
                    started.env_remove(name);
                }
            }
            command = started;
        }
        let mut child = command.envs(&self.environment).stderr(Stdio::from(log)).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(SOON * 2, lines.next_line()).await;
        let Ok(Ok(Some(line))) = line else {
            panic!("`holeshot {}` does not start: {line:?}\n{}", self.args.join(" "), self.log());
        };
        self.said = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        // The rest is read so that the process can write it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.child = Some(child);
    }

    pub(crate) fn url(&self) -> String {
        self.said["url"].as_str().unwrap_or_else(|| panic!("no url: {}", self.said)).to_owned()
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self) {
        self.child.take().expect("it runs").kill().await.unwrap();
    }

    pub(crate) fn signal(&self, number: libc::c_int) {
        signal(self.child.as_ref().expect("it runs"), number);
    }

    /// Ends it in order.
    pub(crate) async fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        signal(&child, libc::SIGTERM);
        let status = timeout(Duration::from_secs(40), child.wait()).await.expect("it ends").unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// What it, and those before it, have logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}
