//! What a room is opened with, its limits and their defaults, and why opening can fail.

use holeshot_abi::{Malformed, Manifest, ManifestError, Setup};

/// What a room is opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomConfig {
    /// The room's name in events and records, 1 to [`RoomConfig::ID_BYTES_MAX`] bytes.
    pub id: String,
    /// What the module says of itself.
    pub manifest: Manifest,
    /// What the rules were set up with: the same that the module got in its setup record. Its `tick_hz` is the one that counts.
    pub setup: Setup,
    /// How long the room waits and how much it keeps.
    pub limits: Limits,
}

impl RoomConfig {
    /// Longest id of a room in bytes: a UUID has 36; it is a part of every internal event.
    pub const ID_BYTES_MAX: usize = 64;

    pub(crate) fn validate(&self) -> Result<(), OpenError> {
        if self.id.is_empty() || self.id.len() > Self::ID_BYTES_MAX {
            return Err(OpenError::Id { len_bytes: self.id.len() });
        }
        self.manifest.validate()?;
        // The one writer of setup records knows its limits; what it writes is thrown away.
        self.setup.write(&mut Vec::new())?;
        let players = self.setup.players.len();
        let (min, max) = (self.manifest.players_min, self.manifest.players_max);
        if !(usize::from(min)..=usize::from(max)).contains(&players) {
            return Err(OpenError::Players { players, min, max });
        }
        let is_json = |text: &str| text.is_empty() || crate::json::check(text).is_ok();
        if !is_json(&self.setup.options) {
            return Err(OpenError::OptionsNotJson);
        }
        for (player, setup) in self.setup.players.iter().enumerate() {
            if !is_json(&setup.data) {
                return Err(OpenError::PlayerDataNotJson { player });
            }
        }
        Ok(())
    }
}

/// How long a room waits and how much it keeps. [`Default`] gives the constants below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long the room waits for all players to connect, from its opening, in microseconds.
    pub gather_wait_us: u64,
    /// How long it then waits for all players to be ready, in microseconds.
    pub ready_wait_us: u64,
    /// How long a player whose connection broke keeps its slot, in microseconds.
    pub reconnect_grace_us: u64,
    /// How long the outcome stays available after the end, in microseconds.
    pub linger_us: u64,
    /// How many overdue ticks one call of `step` makes up for; 0 counts as 1.
    pub catch_up_ticks_max: u32,
    /// How many actions of one player may wait for a tick. At most [`ACTION_RESULTS_KEPT_MAX`](crate::ACTION_RESULTS_KEPT_MAX) count.
    pub actions_queued_max: usize,
    /// How many public events are kept for players that reconnect. The newest is always kept.
    pub events_kept_max: usize,
    /// How many bytes of names and data these events may have together.
    pub events_kept_bytes_max: usize,
}

impl Limits {
    /// A minute: time to open a link somebody sent and to load the game.
    pub const GATHER_WAIT_US: u64 = 60_000_000;
    /// Half a minute: all are there and look at each other; who does nothing is away from the keyboard.
    pub const READY_WAIT_US: u64 = 30_000_000;
    /// Ten seconds: a phone that changes from Wi-Fi to mobile needs two to five.
    pub const RECONNECT_GRACE_US: u64 = 10_000_000;
    /// Half a minute: longer than the grace, so that nobody who may come back finds the room gone.
    pub const LINGER_US: u64 = 30_000_000;
    /// Five ticks, 100 ms at 50 Hz: a hiccup of the machine. Ticks that make up for a longer stall would be played on inputs that
    /// no player chose, all at once.
    pub const CATCH_UP_TICKS_MAX: u32 = 5;
    /// Sixteen actions: more than a person presses in the seconds before frame 0.
    pub const ACTIONS_QUEUED_MAX: usize = 16;
    /// 128 public events: minutes of a talkative game, far more than comes in a grace time.
    pub const EVENTS_KEPT_MAX: usize = 128;
    /// 64 KiB: with thousands of rooms in one process this is what the worst module can make each of them keep.
    pub const EVENTS_KEPT_BYTES_MAX: usize = 64 << 10;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            gather_wait_us: Self::GATHER_WAIT_US,
            ready_wait_us: Self::READY_WAIT_US,
            reconnect_grace_us: Self::RECONNECT_GRACE_US,
            linger_us: Self::LINGER_US,
            catch_up_ticks_max: Self::CATCH_UP_TICKS_MAX,
            actions_queued_max: Self::ACTIONS_QUEUED_MAX,
            events_kept_max: Self::EVENTS_KEPT_MAX,
            events_kept_bytes_max: Self::EVENTS_KEPT_BYTES_MAX,
        }
    }
}

/// Why a room cannot be opened. Each is a mistake of who asked for the room, or of the module's manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The id is empty or too long.
    #[error("a room's id has 1 to 64 bytes, this one has {len_bytes}")]
    Id {
        /// Its length in bytes.
        len_bytes: usize,
    },
    /// The manifest has a field out of its range.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The setup cannot be written as a setup record.
    #[error(transparent)]
    Setup(#[from] Malformed),
    /// The number of player slots is not one that the module accepts.
    #[error("the room has {players} player slots; the module accepts {min} to {max}")]
    Players {
        /// Slots asked for.
        players: usize,
        /// Fewest the module accepts.
        min: u16,
        /// Most the module accepts.
        max: u16,
    },
    /// The room's options are not JSON.
    #[error("the room's options are neither empty nor JSON text")]
    OptionsNotJson,
    /// What a player brings is not JSON.
    #[error("the data of player {player} is neither empty nor JSON text")]
    PlayerDataNotJson {
        /// The player's slot.
        player: usize,
    },
}
