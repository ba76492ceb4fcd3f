//! What this machine lets a host have: memory, memory mappings, open files, a receive buffer. Each of the first three is looked at before the host meets it, because none of them is
//! refused in a way that a process survives: the system kills one that runs out of memory, an allocator without mappings aborts.

pub(crate) mod allocator;
pub(crate) mod ask;
pub mod disk;
pub(crate) mod drops;
pub mod files;
pub mod mappings;
pub mod memory;
pub(crate) mod receive_buffer;

use std::fmt;

use serde::Serialize;

/// How many rooms a host can have, by each of the bounds that it knew when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RoomsCeiling {
    /// The setting `rooms_max`.
    pub setting: u64,
    /// What `vm.max_map_count` carries. None where there is no such limit.
    pub mappings: Option<u64>,
    /// What memory carried at the start: typical rooms, without the reserve. None where the system does not say.
    pub memory: Option<u64>,
}

/// The bounds of [`RoomsCeiling`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RoomsBound {
    /// The setting.
    Setting,
    /// Memory mappings.
    Mappings,
    /// Memory.
    Memory,
}

impl RoomsCeiling {
    /// The lowest of them, and which it is. Of equals, the setting.
    #[must_use]
    pub fn binding(&self) -> (u64, RoomsBound) {
        let bounds = [
            Some((self.setting, RoomsBound::Setting)),
            self.mappings.map(|rooms| (rooms, RoomsBound::Mappings)),
            self.memory.map(|rooms| (rooms, RoomsBound::Memory)),
        ];
        bounds.into_iter().flatten().min_by_key(|(rooms, _)| *rooms).unwrap_or((self.setting, RoomsBound::Setting))
    }
}

impl fmt::Display for RoomsCeiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rooms, binding) = self.binding();
        let bounds = [
            (RoomsBound::Setting, "the setting rooms_max", Some(self.setting)),
            (RoomsBound::Mappings, "vm.max_map_count", self.mappings),
            (RoomsBound::Memory, "memory that is free now", self.memory),
        ];
        let name = bounds.iter().find(|(bound, ..)| *bound == binding).map_or("", |(_, name, _)| *name);
        write!(f, "{rooms}, by {name}")?;
        for (bound, name, rooms) in bounds {
            if let Some(rooms) = rooms.filter(|_| bound != binding) {
                write!(f, "; {name} allows {rooms}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_bound_binds_and_is_told_first() {
        let ceiling = RoomsCeiling { setting: 4_000, mappings: Some(14_184), memory: Some(900) };
        assert_eq!(ceiling.binding(), (900, RoomsBound::Memory));
        assert_eq!(
            ceiling.to_string(),
            "900, by memory that is free now; the setting rooms_max allows 4000; vm.max_map_count allows 14184"
        );
        let ceiling = RoomsCeiling { memory: Some(4_000), ..ceiling };
        assert_eq!(ceiling.binding(), (4_000, RoomsBound::Setting));
        let elsewhere = RoomsCeiling { setting: 7, mappings: None, memory: None };
        assert_eq!(elsewhere.to_string(), "7, by the setting rooms_max");
    }
}
