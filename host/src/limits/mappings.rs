//! How many memory mappings a process may have, and how many instances of rules that carries.

/// Memory mappings that one instance takes: the module's data, what was grown or left empty before and after it, and the unused rest of the slot. A
/// test counts them.
pub const MAPPINGS_PER_INSTANCE: u64 = 4;
/// Mappings left to everything else: threads, libraries, the allocator, compiled modules, the database.
pub const MAPPINGS_RESERVED: u64 = 8_192;

/// The system's limit on mappings of one process, and how many this process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mappings {
    /// The limit.
    pub limit: u64,
    /// In use.
    pub used: u64,
}

impl Mappings {
    /// Of this process; none where there is no such limit (elsewhere than on Linux).
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()?;
        Some(Self { limit, used: mappings_used()? })
    }

    /// Mappings that a process with so many instances comes to.
    #[must_use]
    pub const fn needed(self, instances: u64) -> u64 {
        self.used.saturating_add(MAPPINGS_RESERVED).saturating_add(instances.saturating_mul(MAPPINGS_PER_INSTANCE))
    }

    /// Most instances that the limit carries.
    #[must_use]
    pub const fn instances_possible(self) -> u64 {
        self.limit.saturating_sub(self.used.saturating_add(MAPPINGS_RESERVED)) / MAPPINGS_PER_INSTANCE
    }
}

/// Mappings of this process at the moment. Takes a millisecond for each few thousand of them: not for a shard.
#[must_use]
pub fn mappings_used() -> Option<u64> {
    mappings_of("self")
}

/// Mappings of the process of this number, or of `self`.
#[must_use]
pub fn mappings_of(process: impl std::fmt::Display) -> Option<u64> {
    Some(std::fs::read_to_string(format!("/proc/{process}/maps")).ok()?.lines().count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_possible_is_what_fits() {
        let mappings = Mappings { limit: 65_530, used: 200 };
        let possible = mappings.instances_possible();
        assert_eq!(possible, 14_284);
        assert!(mappings.needed(possible) <= mappings.limit && mappings.needed(possible + 1) > mappings.limit);
        let used_up = Mappings { limit: 1_000, used: u64::MAX };
        assert_eq!((used_up.instances_possible(), used_up.needed(u64::MAX)), (0, u64::MAX));
    }
}
