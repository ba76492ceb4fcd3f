//! Standard output and standard error. Neither may stop a host: not when nobody reads any more (`| head`), which makes the
//! standard macros panic, and not when the reader stalls, which would hold up the thread that logs, a shard perhaps.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines of log that wait for a slow terminal or pipe; more are dropped and counted. At 200 bytes each, a megabyte or so.
const LINES_QUEUED_MAX: usize = 4_096;
/// How long the end of the program waits for lines to be written, in milliseconds.
const LAST_LINES_WAIT_MS: u64 = 500;

/// Prints a line on standard output. False if nobody reads it.
pub(super) fn say(line: impl Display) -> bool {
    writeln!(io::stdout().lock(), "{line}").is_ok()
}

/// A number with commas between its thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Prints a line on standard error, if somebody reads it.
pub(super) fn note(line: impl Display) {
    let _nobody_reads = writeln!(io::stderr().lock(), "{line}");
}

/// Takes lines of log from any thread, without waiting for whoever reads them.
#[derive(Debug, Clone)]
pub(super) struct Log {
    lines: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

/// The writing end of a [`Log`].
#[derive(Debug)]
pub(super) struct Written {
    ended: Receiver<()>,
    end: SyncSender<Vec<u8>>,
}

impl Log {
    /// A log whose lines a thread writes to `out`.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(mut out: impl Write + Send + 'static) -> io::Result<(Self, Written)> {
        let (lines, queue) = sync_channel::<Vec<u8>>(LINES_QUEUED_MAX);
        let (done, ended) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let (end, lost) = (lines.clone(), Arc::clone(&dropped));
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            // An empty line is the end.
            while let Some(line) = queue.recv().ok().filter(|line| !line.is_empty()) {
                let _nobody_reads = out.write_all(&line);
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let _nobody_reads = writeln!(out, "{lost} lines of log were dropped: they are read too slowly");
                }
            }
            let _nobody_waits = done.send(());
        })?;
        Ok((Self { lines, dropped }, Written { ended, end }))
    }
}

impl Written {
    /// Writes what was logged so far, as far as that is read soon.
    pub(super) fn finish(self) {
        if self.end.try_send(Vec::new()).is_ok() {
            let _stalled = self.ended.recv_timeout(Duration::from_millis(LAST_LINES_WAIT_MS));
        }
    }
}

/// One line: the formatter writes each event in one piece.
impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !line.is_empty() && self.lines.try_send(line.to_vec()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Writes once it is let, and keeps what was written.
    #[derive(Clone)]
    struct Slow {
        gate: Arc<Mutex<()>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = self.gate.lock().unwrap();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1_000, 12_345, 1_234_567].map(grouped), ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_no_time() {
        let out = Slow { gate: Arc::default(), written: Arc::default() };
        let (log, written) = Log::start(out.clone()).unwrap();
        let stall = out.gate.lock().unwrap();
        for number in 0..2 * LINES_QUEUED_MAX {
            let line = format!("line {number}\n");
            assert_eq!(log.make_writer().write(line.as_bytes()).unwrap(), line.len());
        }
        drop(stall);
        // There is a place for the end once the thread has taken a line.
        while log.lines.try_send(b"last\n".to_vec()).is_err() {
            std::thread::yield_now();
        }
        let mut end = log.lines.try_send(Vec::new());
        while end.is_err() {
            std::thread::yield_now();
            end = log.lines.try_send(Vec::new());
        }
        written.ended.recv_timeout(Duration::from_secs(30)).unwrap();
        let text = String::from_utf8(out.written.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.first().copied(), Some("line 0"));
        assert_eq!(lines.last().copied(), Some("last"));
        let dropped: usize = lines
            .iter()
            .filter_map(|line| line.strip_suffix(" lines of log were dropped: they are read too slowly"))
            .map(|count| count.parse::<usize>().unwrap())
            .sum();
        let kept = lines.iter().filter(|line| line.starts_with("line ")).count();
        assert!(dropped > 0);
        assert_eq!(kept + dropped, 2 * LINES_QUEUED_MAX);
    }
}
