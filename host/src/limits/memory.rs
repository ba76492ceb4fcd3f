//! How much memory is left to this process, and the gate that opens no room without it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::clock::Clock;

/// The most memory that one room can come to, in bytes: 4 MiB of its module, a state and the records since it of up to 1 MiB each, and what the host
/// keeps for players and events. One more room of that size must fit beside the reserve, so that the worst module finds its memory where it asks for
/// it.
pub const ROOM_BYTES_MAX: u64 = (4 << 20) + (2 << 20) + (512 << 10);
/// What a room takes as soon as it is open, in bytes. The drag race takes 20 to 45 KiB, its sessions and events as much again.
pub const ROOM_BYTES_TYPICAL: u64 = 128 << 10;
/// How long one look at the system counts, in microseconds. The files take 0.1 ms to read; rooms opened meanwhile count as typical ones.
pub const LOOK_EVERY_US: u64 = 250_000;
/// A limit of a control group above this is none: its kernel writes "no limit" as the largest number of pages.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// What bounds the memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryBound {
    /// The machine has no more.
    Machine,
    /// The limit of the container, service or control group that the process runs in.
    Group,
    /// The limit on the process's address space (`ulimit -v`).
    AddressSpace,
}

impl fmt::Display for MemoryBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "the machine",
            Self::Group => "the memory limit of its container or control group",
            Self::AddressSpace => "its address space limit (ulimit -v)",
        })
    }
}

/// Memory that is left, by the strictest bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Available {
    /// Bytes.
    pub bytes: u64,
    /// Who says so.
    pub bound: MemoryBound,
}

/// Too little memory for one more room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{bound} has {available_mib} MiB of memory left for this host, of which {reserve_mib} MiB are kept in reserve, and one more room may take \
     {room_mib} MiB; wait until rooms end, give the host more memory, or lower `memory_reserve_mib`"
)]
pub struct NoMemory {
    /// Who bounds it.
    pub bound: MemoryBound,
    /// What is left, in MiB.
    pub available_mib: u64,
    /// What stays unused, in MiB.
    pub reserve_mib: u64,
    /// What one room may take, in MiB.
    pub room_mib: u64,
}

/// The last look at the system.
#[derive(Debug)]
struct Look {
    at_us: u64,
    available: Option<Available>,
    rooms_since: u64,
}

/// Lets a room open as long as there is memory for it. On a system that does not say what is left (other than Linux) it lets every room.
#[derive(Debug)]
pub struct MemoryGate {
    root: PathBuf,
    reserve_bytes: u64,
    clock: Clock,
    look: Mutex<Option<Look>>,
}

impl MemoryGate {
    /// A gate that keeps `reserve_mib` MiB unused.
    #[must_use]
    pub fn new(reserve_mib: u32, clock: Clock) -> Self {
        Self::at(Path::new("/"), reserve_mib, clock)
    }

    /// A gate that reads the system's files under another root.
    fn at(root: &Path, reserve_mib: u32, clock: Clock) -> Self {
        Self { root: root.into(), reserve_bytes: u64::from(reserve_mib) << 20, clock, look: Mutex::default() }
    }

    /// Counts one more room, if there is memory for it.
    ///
    /// # Errors
    /// [`NoMemory`] with the figures.
    pub fn admit(&self) -> Result<(), NoMemory> {
        self.admit_at(self.clock.now_us())
    }

    fn admit_at(&self, now_us: u64) -> Result<(), NoMemory> {
        // A thread that panicked in here left a look that is complete or the one before.
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = look.as_ref().is_none_or(|look| now_us.saturating_sub(look.at_us) >= LOOK_EVERY_US);
        if is_old {
            *look = Some(Look { at_us: now_us, available: available(&self.root), rooms_since: 0 });
        }
        let Some(look) = look.as_mut() else { return Ok(()) };
        let verdict = look.available.map_or(Ok(()), |seen| {
            let opened_since = look.rooms_since.saturating_mul(ROOM_BYTES_TYPICAL);
            enough(Available { bytes: seen.bytes.saturating_sub(opened_since), ..seen }, self.reserve_bytes)
        });
        look.rooms_since += u64::from(verdict.is_ok());
        verdict
    }

    /// What is left now, the reserve included. None where the system does not say.
    #[must_use]
    pub fn available(&self) -> Option<Available> {
        available(&self.root)
    }

    /// What stays unused, in bytes.
    #[must_use]
    pub const fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    /// How many typical rooms there is memory for now, and who bounds it. None where the system does not say.
    #[must_use]
    pub fn rooms_possible(&self) -> Option<(u64, MemoryBound)> {
        let seen = available(&self.root)?;
        let free = seen.bytes.saturating_sub(self.reserve_bytes.saturating_add(ROOM_BYTES_MAX));
        Some((free / ROOM_BYTES_TYPICAL, seen.bound))
    }
}

fn enough(seen: Available, reserve_bytes: u64) -> Result<(), NoMemory> {
    if seen.bytes >= reserve_bytes.saturating_add(ROOM_BYTES_MAX) {
        return Ok(());
    }
    Err(NoMemory {
        bound: seen.bound,
        available_mib: seen.bytes >> 20,
        reserve_mib: reserve_bytes >> 20,
        room_mib: ROOM_BYTES_MAX.div_ceil(1 << 20),
    })
}

/// Memory that is left to this process, by the strictest of the bounds that the system tells of. None if it tells of none.
///
/// - The machine: `MemAvailable` of `/proc/meminfo`.
/// - Control groups, version 2 and 1, of this process and all above it: the limit less what is used, files that can be dropped not counted
///   (`inactive_file`; a container that read large files would look full otherwise).
/// - The address space: `Max address space` of `/proc/self/limits` less `VmSize`.
#[must_use]
pub fn available(root: &Path) -> Option<Available> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|text| kib_field(&text, "MemAvailable:"));
    let groups = read("proc/self/cgroup").map(|text| group_folders(&text)).unwrap_or_default();
    let group = groups.iter().filter_map(|folder| group_left(root, folder)).min();
    let address_space = address_space_left(root);
    [
        machine.map(|bytes| Available { bytes, bound: MemoryBound::Machine }),
        group.map(|bytes| Available { bytes, bound: MemoryBound::Group }),
        address_space.map(|bytes| Available { bytes, bound: MemoryBound::AddressSpace }),
    ]
    .into_iter()
    .flatten()
    .min_by_key(|seen| seen.bytes)
}

/// Addresses that this process may still take, in bytes. None if it has no limit.
#[must_use]
pub fn address_space_left(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let limit = address_space_max(&read("proc/self/limits")?)?;
    Some(limit.saturating_sub(kib_field(&read("proc/self/status")?, "VmSize:")?))
}

/// The bytes of a line like `MemAvailable:   23897252 kB`.
pub(crate) fn kib_field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

fn address_space_max(limits: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    // "unlimited" is no number.
    rest.split_whitespace().next()?.parse().ok()
}

/// A control group's folder under the root, and how its files are called.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GroupFolder {
    path: String,
    version: GroupVersion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupVersion {
    One,
    Two,
}

/// The folders of the process's control groups for memory and of all groups above, from `/proc/self/cgroup` (cgroups(7): lines
/// `number:controllers:path`; version 2 is number 0 without controllers).
fn group_folders(text: &str) -> Vec<GroupFolder> {
    /// Groups within groups that are looked at: containers within services within slices come to about six.
    const GROUPS_MAX: usize = 32;
    let mut folders = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (mount, version) = if number == "0" && controllers.is_empty() {
            ("sys/fs/cgroup", GroupVersion::Two)
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("sys/fs/cgroup/memory", GroupVersion::One)
        } else {
            continue;
        };
        let mut path = path.trim_matches('/');
        for _ in 0..GROUPS_MAX {
            // In a container the path may be that of the machine outside, which is not there; the mount's own folder is then the container's.
            let folder = if path.is_empty() { mount.to_owned() } else { format!("{mount}/{path}") };
            folders.push(GroupFolder { path: folder, version });
            match path.rfind('/') {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None if path.is_empty() => break,
                None => path = "",
            }
        }
    }
    folders
}

/// What a group's limit leaves; none if it has no limit.
fn group_left(root: &Path, folder: &GroupFolder) -> Option<u64> {
    let folder_path = root.join(&folder.path);
    let (limit, used, dropped) = match folder.version {
        GroupVersion::Two => ("memory.max", "memory.current", "inactive_file "),
        GroupVersion::One => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
    };
    let number = |name: &str| std::fs::read_to_string(folder_path.join(name)).ok()?.trim().parse::<u64>().ok();
    // "max" of version 2 is no number.
    let limit = number(limit).filter(|limit| *limit < NO_LIMIT_BYTES)?;
    let used = number(used)?;
    let stat = std::fs::read_to_string(folder_path.join("memory.stat")).unwrap_or_default();
    let droppable = stat.lines().find_map(|line| line.strip_prefix(dropped)?.trim().parse::<u64>().ok()).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(droppable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of a made-up system.
    struct System(tempfile::TempDir);

    impl System {
        fn new(files: &[(&str, &str)]) -> Self {
            let system = Self(tempfile::tempdir().unwrap());
            for (path, text) in files {
                system.write(path, text);
            }
            system
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn available_mib(&self) -> Option<(u64, MemoryBound)> {
            available(self.0.path()).map(|seen| (seen.bytes >> 20, seen.bound))
        }
    }

    fn meminfo(available_mib: u64) -> String {
        format!(
            "MemTotal:       24684100 kB\nMemFree: 1 kB\nMemAvailable:   {} kB\nBuffers: 9 kB\n",
            available_mib << 10
        )
    }

    #[test]
    fn the_strictest_bound_counts() {
        let system = System::new(&[]);
        assert_eq!(system.available_mib(), None, "a system that says nothing");
        system.write("proc/meminfo", &meminfo(9_000));
        assert_eq!(system.available_mib(), Some((9_000, MemoryBound::Machine)));

        system.write("proc/self/cgroup", "0::/user.slice/holeshot.service\n");
        system.write("sys/fs/cgroup/user.slice/holeshot.service/memory.max", "max\n");
        system.write("sys/fs/cgroup/user.slice/holeshot.service/memory.current", "1\n");
        assert_eq!(system.available_mib(), Some((9_000, MemoryBound::Machine)), "a group without a limit");
        // The limit of a group above.
        system.write("sys/fs/cgroup/user.slice/memory.max", &format!("{}\n", 2_000u64 << 20));
        system.write("sys/fs/cgroup/user.slice/memory.current", &format!("{}\n", 1_900u64 << 20));
        assert_eq!(system.available_mib(), Some((100, MemoryBound::Group)));
        // Most of what it uses are files that can be dropped.
        system.write(
            "sys/fs/cgroup/user.slice/memory.stat",
            &format!("anon 7\nactive_file 5\ninactive_file {}\n", 1_500u64 << 20),
        );
        assert_eq!(system.available_mib(), Some((1_600, MemoryBound::Group)));

        let limits = |space: &str| {
            format!("Max open files 20000 20000 files\nMax address space         {space}  unlimited  bytes\n")
        };
        system.write("proc/self/limits", &limits("unlimited"));
        system.write("proc/self/status", "Name:\tx\nVmSize:\t  409600 kB\nVmRSS:\t 1 kB\n");
        assert_eq!(system.available_mib(), Some((1_600, MemoryBound::Group)));
        system.write("proc/self/limits", &limits(&(500u64 << 20).to_string()));
        assert_eq!(system.available_mib(), Some((100, MemoryBound::AddressSpace)));
    }

    #[test]
    fn groups_of_version_1_count_and_those_outside_a_container_are_its_own() {
        let system = System::new(&[("proc/meminfo", &meminfo(9_000))]);
        system.write("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/outside/0123\n0::/\n");
        system.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        system.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n");
        assert_eq!(system.available_mib(), Some((9_000, MemoryBound::Machine)));
        system.write("sys/fs/cgroup/memory/memory.limit_in_bytes", &format!("{}\n", 512u64 << 20));
        system.write("sys/fs/cgroup/memory/memory.usage_in_bytes", &format!("{}\n", 500u64 << 20));
        system.write(
            "sys/fs/cgroup/memory/memory.stat",
            &format!("inactive_file 1\ntotal_inactive_file {}\n", 8u64 << 20),
        );
        assert_eq!(system.available_mib(), Some((20, MemoryBound::Group)));
        // More used than there is: nothing is left, and nothing overflows.
        system.write("sys/fs/cgroup/memory/memory.usage_in_bytes", &format!("{}\n", u64::MAX));
        system.write("sys/fs/cgroup/memory/memory.stat", "total_inactive_file -5\nnonsense");
        assert_eq!(system.available_mib(), Some((0, MemoryBound::Group)));
    }

    #[test]
    fn files_that_are_not_as_expected_bound_nothing() {
        for text in
            ["", "MemAvailable: many kB", "MemAvailable: 1 MB", "MemAvailable: 99999999999999999999 kB", "\0\u{ff}"]
        {
            assert_eq!(System::new(&[("proc/meminfo", text)]).available_mib(), None, "{text}");
        }
        let deep = format!("0::{}\n1:memory\n:::\n2:memory:relative/../..\n", "/a".repeat(1_000));
        assert!(group_folders(&deep).len() <= 2 * 33);
    }

    #[test]
    fn rooms_open_only_as_long_as_there_is_memory_and_again_when_there_is() {
        let system = System::new(&[("proc/meminfo", &meminfo(110))]);
        let gate = MemoryGate::at(system.0.path(), 100, Clock::start());
        // 110 - 100 - 6.5 MiB carry 28 typical rooms beside the worst one; the look at the start counts for all of them.
        let opened = (0..1_000).take_while(|_| gate.admit_at(0).is_ok()).count();
        assert_eq!(opened, 29);
        let message = gate.admit_at(LOOK_EVERY_US - 1).unwrap_err().to_string();
        assert!(
            ["the machine has 106 MiB", "100 MiB are kept", "take 7 MiB", "`memory_reserve_mib`"]
                .iter()
                .all(|words| message.contains(words)),
            "{message}"
        );
        // Rooms ended, or the reading was of rooms that had not taken their memory.
        system.write("proc/meminfo", &meminfo(107));
        assert!(gate.admit_at(LOOK_EVERY_US - 1).is_err(), "the look before still counts");
        assert!(gate.admit_at(LOOK_EVERY_US).is_ok());
        system.write("proc/meminfo", &meminfo(106));
        assert!(gate.admit_at(3 * LOOK_EVERY_US).is_err());
        assert!(
            System::new(&[]).0.path().exists()
                && MemoryGate::at(Path::new("/none"), 1 << 20, Clock::start()).admit().is_ok()
        );
        assert_eq!(gate.rooms_possible(), Some((0, MemoryBound::Machine)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_tells_how_much_is_left() {
        let seen = available(Path::new("/")).expect("Linux says what is available");
        assert!(seen.bytes > 0, "{seen:?}");
        let clock = Clock::start();
        let reserve_of_all = MemoryGate::new(u32::MAX, clock);
        assert!(reserve_of_all.admit().is_err());
        assert!(MemoryGate::new(0, clock).rooms_possible().is_some());
    }
}
