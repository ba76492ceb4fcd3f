//! Asks another program of this machine for what the standard library does not tell, and does not wait for it for ever.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take: `df` on a network disk that is gone would never answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Longest answer that is read, in bytes: a few lines, with the longest path that Linux has. A program that says more is stuck until it is ended.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// What a program says on its standard output, in English. None if it is not there, fails, or takes too long. Blocks.
pub(crate) fn ask(program: &str, arguments: &[&OsStr]) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let deadline = Instant::now() + ANSWER_MAX;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
            _ => {
                let _gone = child.kill();
                let _reaped = child.wait();
                return None;
            }
        }
    };
    let mut text = String::new();
    child.stdout.take()?.take(ANSWER_BYTES_MAX).read_to_string(&mut text).ok()?;
    status.success().then_some(text)
}
