//! The machine and the build that figures are of: without them a figure says nothing.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Characters of a description that are kept: a processor's name has some fifty.
const TEXT_CHARS_MAX: usize = 100;
/// Digits of a commit: as git shortens them, and some.
const COMMIT_DIGITS: usize = 12;

/// What figures are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name, as it says itself.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory, in MiB; 0 if the system does not say.
    pub memory_mib: u64,
    /// The operating system, and the version of its kernel.
    pub system: String,
    /// `release`, or `dev`: then figures mean little.
    pub build: String,
    /// This program's version.
    pub version: String,
    /// The commit in whose working tree this program lies, with a `+` if files differ from it; none if it lies in none.
    pub commit: Option<String>,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let kernel = read("/proc/sys/kernel/osrelease");
        let memory = crate::limits::memory::kib_field(&read("/proc/meminfo"), "MemTotal:").unwrap_or_default();
        Self {
            processor: processor(&read("/proc/cpuinfo")).unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory >> 20,
            system: format!("{} {}", std::env::consts::OS, short(kernel.trim())).trim_end().to_owned(),
            build: if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit(),
        }
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { processor, cores, memory_mib, system, build, version, commit } = self;
        let commit = commit.as_deref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
        format!(
            "{processor}, {cores} cores, {memory_mib} MiB of memory, {system}; Holeshot {version}, {build} build{commit}"
        )
    }
}

fn short(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(TEXT_CHARS_MAX).collect()
}

fn processor(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(short(line.split_once(':')?.1.trim())).filter(|name| !name.is_empty())
}

/// Asks git, if there is one and the program lies in a working tree: that is where it was built.
fn commit() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    let commit: String = git(folder, &["rev-parse", "HEAD"])?.trim().chars().take(COMMIT_DIGITS).collect();
    let differs = git(folder, &["status", "--porcelain", "--untracked-files=no"])?;
    let is_commit = commit.len() == COMMIT_DIGITS && commit.chars().all(|digit| digit.is_ascii_hexdigit());
    is_commit.then(|| if differs.trim().is_empty() { commit } else { format!("{commit}+") })
}

fn git(folder: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_says_its_name() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2.50GHz\nmodel name\t: Other\n";
        assert_eq!(processor(cpuinfo).as_deref(), Some("Some CPU @ 2.50GHz"));
        assert_eq!((processor(""), processor("model name\t:\n"), processor("model name")), (None, None, None));
        assert_eq!(short(&"\u{1b}x".repeat(200)).len(), TEXT_CHARS_MAX);
    }

    #[test]
    fn this_machine_is_described_in_a_line() {
        let machine = Machine::this();
        let line = machine.line();
        assert!(machine.cores >= 1 && line.contains(&machine.build) && !line.contains('\n'), "{line}");
        let again: Machine = serde_json::from_str(&serde_json::to_string(&machine).unwrap()).unwrap();
        assert_eq!(again, machine);
    }
}
