//! What the system says of a process: this one, or one that is measured. Elsewhere than on Linux it says nothing here.

use std::fmt::Display;

use crate::limits::memory::kib_field;

/// Ticks of the clock in which Linux tells processor time: 100 on every machine that this host runs on (`USER_HZ`).
const CLOCK_TICKS_PER_S: f64 = 100.0;

/// What a process has and used.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Process {
    pub(crate) resident_bytes: u64,
    pub(crate) virtual_bytes: u64,
    /// The tables in which the system finds its pages: memory that it takes, and that is not among the resident.
    pub(crate) page_tables_bytes: u64,
    pub(crate) threads: u64,
    pub(crate) open_files: u64,
    pub(crate) open_files_max: Option<u64>,
    /// To 10 ms.
    pub(crate) user_s: f64,
    /// To 10 ms.
    pub(crate) system_s: f64,
}

impl Process {
    /// Of this process. Reads a few files of the system; with many open files this takes milliseconds.
    pub(crate) fn read() -> Option<Self> {
        Self::of("self")
    }

    /// Of the process of this number.
    pub(crate) fn of(process: impl Display) -> Option<Self> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{process}/{name}")).ok();
        let status = read("status")?;
        let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok());
        let (user_s, system_s) = read("stat").as_deref().and_then(cpu_s).unwrap_or_default();
        Some(Self {
            resident_bytes: kib_field(&status, "VmRSS:").unwrap_or_default(),
            virtual_bytes: kib_field(&status, "VmSize:").unwrap_or_default(),
            page_tables_bytes: kib_field(&status, "VmPTE:").unwrap_or_default(),
            threads: threads.unwrap_or_default(),
            open_files: std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, |files| files.count() as u64),
            open_files_max: read("limits").as_deref().and_then(open_files_max),
            user_s,
            system_s,
        })
    }

    /// Processor time, to 10 ms.
    pub(crate) fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

/// Memory of a process in RAM, in bytes, each page once: its proportional set size (proc_pid_smaps(5)), in which a page that is mapped n times counts for 1/n each time. The
/// resident size counts the pages of a module that all its instances only read once for each instance. Walks the tables of all mappings: milliseconds and more.
pub(crate) fn proportional_bytes(process: impl Display) -> Option<u64> {
    kib_field(&std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?, "Pss:")
}

fn open_files_max(limits: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// User and system time of a `/proc/PID/stat` (proc_pid_stat(5)): fields 14 and 15, counted from behind the name, which may have spaces.
fn cpu_s(stat: &str) -> Option<(f64, f64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((f64::from(user) / CLOCK_TICKS_PER_S, f64::from(system) / CLOCK_TICKS_PER_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 3";
        assert_eq!(cpu_s(stat), Some((1.5, 0.5)));
        assert_eq!((cpu_s(""), cpu_s("7 (x) S 1"), open_files_max("Max open files  many")), (None, None, None));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_threads_and_files() {
        let process = Process::read().expect("Linux says it");
        assert!(process.resident_bytes > 1 << 20 && process.virtual_bytes > process.resident_bytes, "{process:?}");
        assert!(process.threads >= 1 && process.open_files >= 3 && process.open_files_max.is_some(), "{process:?}");
        assert!(process.page_tables_bytes > 0, "{process:?}");
        assert!(Process::of(std::process::id()).is_some_and(|by_number| by_number.resident_bytes > 1 << 20));
        assert!(
            proportional_bytes("self").is_some_and(|bytes| (1 << 16..=process.resident_bytes * 2).contains(&bytes))
        );
        assert_eq!(Process::of("no-process"), None);
    }
}
