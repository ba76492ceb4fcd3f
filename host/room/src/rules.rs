//! The seam between a room and the rules of its game, and how rules fail. No implementation of rules lives here, nor what is done
//! about a failure.

use std::fmt;
use std::sync::Arc;

use holeshot_abi::{Manifest, Setup};

use crate::warm::AskMany;

/// What a room steps: a wasm instance in the host, native rules in tests.
///
/// The records are those of `holeshot-abi`. Setting the rules up (`init`) is [`Program::begin`]'s affair and not
/// part of this trait. Rules that returned a [`Fault`] are never called again.
pub trait Rules {
    /// Steps the game once: a tick record in, an output record (or nothing) out. The output stays valid until the next call.
    ///
    /// # Errors
    /// A fault, after which these rules must not be called again.
    fn tick(&mut self, record: &[u8]) -> Result<&[u8], Fault>;

    /// The state, in the rules' own format.
    ///
    /// # Errors
    /// A fault, after which these rules must not be called again.
    fn save(&mut self) -> Result<Vec<u8>, Fault>;

    /// Takes over a state that rules with this `state_version` saved.
    ///
    /// # Errors
    /// [`RestoreError::Refused`] if these rules do not understand the state; they are as before then.
    /// [`RestoreError::Fault`] if they failed; they must not be called again then.
    fn restore(&mut self, state_version: u32, state: &[u8]) -> Result<(), RestoreError>;

    /// What the last tick used. Zeros where nobody counts.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// Asks for one line of each page of memory that the next tick comes to: see [`Room::warm`](crate::Room::warm). Where a page is takes a processor longer to
    /// find out than to fetch its lines, and an instruction that asks waits for it; so it comes first, for many rules one after the other.
    fn warm_pages(&self, _ask: AskMany) {}

    /// Asks for the other lines: after [`warm_pages`](Rules::warm_pages).
    fn warm(&self, _ask: AskMany) {}

    /// Reads what lies behind several pointers in a row, which can only be waited for: after [`warm`](Rules::warm), for many rules one after the other.
    fn touch(&self) {}
}

/// What one tick used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Fuel: the same on every machine.
    pub fuel: u64,
    /// Time, in nanoseconds, on this machine.
    pub time_ns: u64,
    /// Memory that the rules have, in bytes.
    pub memory_bytes: usize,
}

/// One module for one room: begins fresh [`Rules`] with the room's setup, as often as they are needed.
///
/// All of them behave alike: the same records give the same bytes.
pub trait Program: Send + Sync + fmt::Debug {
    /// The module's name: the BLAKE3 hash of its file.
    fn hash(&self) -> [u8; 32];

    /// What the module says of itself.
    fn manifest(&self) -> &Manifest;

    /// What the rules are begun with.
    fn setup(&self) -> &Setup;

    /// Begins a fresh instance: it has been set up (`init`) and has seen no frame.
    ///
    /// # Errors
    /// See [`BeginError`].
    fn begin(&self) -> Result<Box<dyn Rules + Send>, BeginError>;

    /// The same module for the same room with another setup. None if this program is bound to its own.
    fn with_setup(&self, setup: Arc<Setup>) -> Option<Arc<dyn Program>> {
        let _bound = setup;
        None
    }
}

/// Why there are no fresh rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    /// The rules refuse the setup; the text is theirs.
    #[error("the rules refuse the setup: {0}")]
    Refused(String),
    /// They failed while they began.
    #[error("the rules failed while they began: {0}")]
    Fault(Fault),
    /// The host has no instance left; the text says what to do about it.
    #[error("there is no instance for the rules: {0}")]
    NoInstance(String),
}

impl From<BeginError> for Fault {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::Refused(_) => Self::new(FaultKind::StateRefused, error.to_string()),
            BeginError::Fault(fault) => fault,
            BeginError::NoInstance(_) => Self::new(FaultKind::NoInstance, error.to_string()),
        }
    }
}

/// Why rules cannot be called any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct Fault {
    /// The kind, for counters and records.
    pub kind: FaultKind,
    /// What happened, for the person who wrote the rules.
    pub message: String,
    /// Where in the rules it happened, if that is known.
    pub backtrace: Option<String>,
}

impl Fault {
    /// A fault without a backtrace.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), backtrace: None }
    }
}

/// The kinds of [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// The rules stopped themselves: a panic, an unreachable instruction, a division by zero, an address out of memory.
    Trap,
    /// One call used more fuel than it may.
    FuelExhausted,
    /// One call took longer than the watchdog allows.
    DeadlineExceeded,
    /// The rules asked for more memory than they may have.
    MemoryExceeded,
    /// What the rules returned is not a span of their memory.
    BadSpan,
    /// What the rules returned breaks the specification: layout, sizes, names, JSON, results.
    BadOutput,
    /// The rules refused what they had taken before: the room's setup, or a state that they had saved.
    StateRefused,
    /// The host had no instance in which to go on.
    NoInstance,
}

impl FaultKind {
    /// The kind as a word for records: `trap`, `fuel_exhausted` …
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::FuelExhausted => "fuel_exhausted",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::MemoryExceeded => "memory_exceeded",
            Self::BadSpan => "bad_span",
            Self::BadOutput => "bad_output",
            Self::StateRefused => "state_refused",
            Self::NoInstance => "no_instance",
        }
    }

    /// Whether the rules took too long, rather than went wrong.
    #[must_use]
    pub const fn is_overrun(self) -> bool {
        matches!(self, Self::FuelExhausted | Self::DeadlineExceeded)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why rules did not take a state over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// They do not understand it; the text is theirs.
    #[error("the rules refuse the state: {0}")]
    Refused(String),
    /// They failed on the way.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<RestoreError> for Fault {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Refused(_) => Self::new(FaultKind::StateRefused, error.to_string()),
            RestoreError::Fault(fault) => fault,
        }
    }
}
