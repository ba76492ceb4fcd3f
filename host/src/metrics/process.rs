//! What the system says of this process. Elsewhere than on Linux it says nothing here.

use crate::limits::memory::kib_field;

/// Ticks of the clock in which Linux tells processor time: 100 on every machine that this host runs on (`USER_HZ`).
const CLOCK_TICKS_PER_S: f64 = 100.0;

/// What the process has and used.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Process {
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) threads: u64,
    pub(super) open_files: u64,
    pub(super) open_files_max: Option<u64>,
    pub(super) cpu_s: f64,
}

impl Process {
    /// Reads a few files of the system; with many open files this takes milliseconds.
    pub(super) fn read() -> Option<Self> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).ok();
        let status = read("status")?;
        let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok());
        Some(Self {
            resident_bytes: kib_field(&status, "VmRSS:").unwrap_or_default(),
            virtual_bytes: kib_field(&status, "VmSize:").unwrap_or_default(),
            threads: threads.unwrap_or_default(),
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
            open_files_max: read("limits").as_deref().and_then(open_files_max),
            cpu_s: read("stat").as_deref().and_then(cpu_s).unwrap_or_default(),
        })
    }
}

fn open_files_max(limits: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// User and system time of `/proc/self/stat` (proc_pid_stat(5)): fields 14 and 15, counted from behind the name, which may have spaces.
fn cpu_s(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user.saturating_add(system) as f64 / CLOCK_TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 3";
        assert_eq!(cpu_s(stat), Some(2.0));
        assert_eq!((cpu_s(""), cpu_s("7 (x) S 1"), open_files_max("Max open files  many")), (None, None, None));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_threads_and_files() {
        let process = Process::read().expect("Linux says it");
        assert!(process.resident_bytes > 1 << 20 && process.virtual_bytes > process.resident_bytes, "{process:?}");
        assert!(process.threads >= 1 && process.open_files >= 3 && process.open_files_max.is_some(), "{process:?}");
    }
}
