//! How much space and how many files a disk has left, as `df` of POSIX tells it: the standard library has no call for it.

use std::ffi::OsStr;
use std::path::Path;

use super::ask::ask;

/// What is left on the disk of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Files in all, and how many may still be made; none where the file system has no such limit.
    pub files: Option<(u64, u64)>,
}

/// The space on the disk of a folder, which must be there. None where `df` is missing, hangs, or says something else. Blocks, seconds at most.
#[must_use]
pub fn space(path: &Path) -> Option<DiskSpace> {
    let (total_kib, free_kib) = figures(&df(path, "-k")?)?;
    let files = df(path, "-i").and_then(|text| figures(&text)).filter(|(total, _)| *total > 0);
    Some(DiskSpace { total_bytes: total_kib.saturating_mul(1_024), free_bytes: free_kib.saturating_mul(1_024), files })
}

fn df(path: &Path, unit: &str) -> Option<String> {
    ask("df", &[OsStr::new("-P"), OsStr::new(unit), OsStr::new("--"), path.as_os_str()])
}

/// Total and free: the first and the third of the three numbers before the percentage. Names with spaces may stand before and after.
fn figures(text: &str) -> Option<(u64, u64)> {
    let fields: Vec<&str> = text.lines().last()?.split_whitespace().collect();
    let is_percentage = |field: &str| field.strip_suffix('%').is_some_and(|digits| digits.parse::<u64>().is_ok());
    let found = fields.windows(4).find_map(|window| match window {
        [total, used, free, percentage] if is_percentage(percentage) => {
            Some((total.parse().ok()?, used.parse::<u64>().ok()?, free.parse().ok()?))
        }
        _ => None,
    });
    found.map(|(total, _, free)| (total, free))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_stand_before_the_percentage() {
        let header = "Filesystem 1024-blocks Used Available Capacity Mounted on\n";
        let of = |line: &str| figures(&format!("{header}{line}\n"));
        assert_eq!(of("/dev/vda 263000 50000 46000 53% /"), Some((263_000, 46_000)));
        assert_eq!(of("//nas/my share 1 12 13 14 8% /mnt/a 5% b"), Some((12, 14)));
        for line in ["", "/dev/vda 1 2 3 - /", "/dev/vda -1 2 3 4% /", "df: /nowhere: No such file or directory"] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
