//! The drag race, record by record, and what comes of each misdeed. Where a misdeed is no affair of a call, the call is the drag race's.

use drag_race::{DragRace, TreeKind};
use holeshot_abi::{ABI_VERSION, InputStatus, Malformed, TickReader, pack_span, read_restore, write_restore};
use holeshot_guest::Rules as _;
use holeshot_guest::export::Instance;

use crate::orders::{Misdeed, Orders, When};

/// Name of the public event in which the other rules say how long each lane's throttle was open.
pub const THROTTLE_EVENT: &str = "full_throttle";
/// Frames from one such event to the next.
pub const THROTTLE_EVENT_EVERY_FRAMES: u32 = 50;
/// A throttle above this is open.
const THROTTLE_OPEN: u8 = 200;
/// What a leaking tick keeps, in bytes: the 4 MiB of an instance last for a hundred ticks, longer than a trial.
const LEAK_BYTES: usize = 32 << 10;
/// Where a growing state stops: a little more than a state may have. Two of them, that of the save before and the new one, are still within the memory, so that it
/// is the state that is refused.
const BALLAST_BYTES_MAX: u32 = (1 << 20) + (64 << 10);
/// What ends a state that has more in it than the drag race's.
const OWN: u32 = 0x6e77_6f21;
/// Bytes before a state's postcard: whether the game has finished.
const STATE_HEAD_BYTES: usize = 1;
/// Kind of a public event's item in an output record.
const PUBLIC_EVENT: u8 = 3;

/// One game.
#[derive(Debug)]
pub struct Misrule {
    orders: Orders,
    game: Instance<DragRace>,
    // u64 for the alignment that the boundary promises.
    buffer: Vec<u64>,
    /// What the last call returned.
    answer: Vec<u8>,
    /// Frames of open throttle per lane: the new field in the state of the other rules.
    throttle_frames: Vec<u32>,
    /// Bytes that a growing state has beside the race.
    ballast_bytes: u32,
    // What no state has.
    ticks: u32,
    kept: Vec<Vec<u8>>,
}

/// The misdeeds of a tick, each in a function of its own: their names are what a backtrace must show.
mod misdeeds {
    use std::hint::black_box;

    #[inline(never)]
    pub(super) fn traps(frame: u32) {
        panic!("misrule was told to trap in frame {frame}");
    }

    #[inline(never)]
    pub(super) fn spins() {
        let mut turns = 0u64;
        while black_box(true) {
            turns = black_box(turns.wrapping_add(1));
        }
    }

    #[inline(never)]
    pub(super) fn eats_memory() -> Vec<Vec<u8>> {
        let mut eaten = Vec::new();
        while black_box(true) {
            eaten.push(vec![1; 256 << 10]);
        }
        eaten
    }

    #[inline(never)]
    pub(super) fn recurses(depth: u32) -> u32 {
        let deeper = black_box(depth).wrapping_add(1);
        if deeper == 0 { 0 } else { black_box(recurses(deeper)).wrapping_add(1) }
    }
}

impl Misrule {
    /// A game that has not begun.
    #[must_use]
    pub const fn new(orders: Orders) -> Self {
        Self {
            orders,
            game: Instance::new(),
            buffer: Vec::new(),
            answer: Vec::new(),
            throttle_frames: Vec::new(),
            ballast_bytes: 0,
            ticks: 0,
            kept: Vec::new(),
        }
    }

    fn does(&self, misdeed: Misdeed) -> bool {
        self.orders.misdeed == misdeed
    }

    /// `holeshot_abi_version`.
    pub fn abi_version(&mut self) -> u32 {
        if self.does(Misdeed::WrongAbi) { 9 << 16 } else { ABI_VERSION }
    }

    /// `holeshot_manifest`.
    pub fn manifest(&mut self) -> i64 {
        let mut manifest = DragRace::manifest();
        manifest.version = format!("{}-misrule.{}", manifest.version, self.orders.serial);
        match self.orders.misdeed {
            Misdeed::OtherTree => manifest.state_version += 1,
            Misdeed::OtherName => manifest.name = "hill-climb".into(),
            Misdeed::OtherTickHz => manifest.tick_hz = 60,
            Misdeed::OtherInput => manifest.input_bytes_max = 8,
            Misdeed::OtherPlayers => manifest.players_max = 1,
            _ => {}
        }
        match serde_json::to_vec(&manifest) {
            Ok(json) => self.answer(json),
            Err(error) => panic!("{error}"),
        }
    }

    /// `holeshot_buffer`.
    pub fn buffer(&mut self, len: usize) -> u32 {
        self.buffer.clear();
        self.buffer.resize(len.div_ceil(8), 0);
        if self.does(Misdeed::WildBuffer) { 0xffff_ff00 } else { self.buffer.as_ptr() as u32 }
    }

    /// `holeshot_init`.
    pub fn init(&mut self, len: usize) -> i64 {
        let record = self.record(len);
        let result = self.game.init(&record);
        self.result(result)
    }

    /// `holeshot_tick`.
    pub fn tick(&mut self, len: usize) -> i64 {
        let record = self.record(len);
        let tick = match TickReader::read(&record) {
            Ok(tick) => tick,
            Err(Malformed { .. }) => panic!("the tick record is malformed"),
        };
        let is_time = match self.orders.when {
            When::InFrame => tick.frame == self.orders.number,
            When::FromFrame => tick.frame >= self.orders.number,
            When::AfterTicks => self.ticks >= self.orders.number,
        };
        self.ticks += 1;
        match self.orders.misdeed {
            Misdeed::Traps if is_time => misdeeds::traps(tick.frame),
            Misdeed::Spins if is_time => misdeeds::spins(),
            Misdeed::EatsMemory if is_time => self.kept = misdeeds::eats_memory(),
            Misdeed::Recurses if is_time => self.ballast_bytes = misdeeds::recurses(0),
            Misdeed::Leaks => self.kept.push(vec![1; LEAK_BYTES]),
            Misdeed::Grows => {
                self.ballast_bytes = self.ballast_bytes.saturating_add(self.orders.number).min(BALLAST_BYTES_MAX);
            }
            _ => {}
        }
        let mut output = self.game.tick(&record).to_vec();
        match self.orders.misdeed {
            Misdeed::WildTickAddress if is_time => return pack_span(0xffff_0000, 16),
            Misdeed::WildTickLength if is_time => return pack_span(4_096, 0x7fff_ffff),
            Misdeed::NoRecord if is_time => output = vec![0xff; 64],
            Misdeed::NoJson if is_time => push_event(&mut output, "speech", b"{not json"),
            Misdeed::ForgedEvent if is_time => push_event(&mut output, "finished", b"{}"),
            Misdeed::OtherTree => {
                self.note_throttle(&tick);
                if tick.frame.is_multiple_of(THROTTLE_EVENT_EVERY_FRAMES) {
                    let data = format!("{{\"frames\":{:?}}}", self.throttle_frames);
                    push_event(&mut output, THROTTLE_EVENT, data.as_bytes());
                }
            }
            _ => {}
        }
        self.answer(output)
    }

    /// `holeshot_save`.
    pub fn save(&mut self) -> i64 {
        // First: what was answered before may be as large, and the memory is small.
        self.answer = Vec::new();
        let mut state = self.game.save().to_vec();
        match self.orders.misdeed {
            Misdeed::WildSave if self.ticks >= self.orders.number => return pack_span(0xffff_0000, 16),
            Misdeed::RefusesOwnState => push_own(&mut state, [], 0),
            Misdeed::ForgetsTicks => push_own(&mut state, self.ticks.to_le_bytes(), 0),
            Misdeed::Grows => push_own(&mut state, [], self.ballast_bytes as usize),
            Misdeed::OtherTree => {
                push_own(&mut state, self.throttle_frames.iter().flat_map(|frames| frames.to_le_bytes()), 0);
            }
            _ => {}
        }
        self.answer(state)
    }

    /// `holeshot_restore`.
    pub fn restore(&mut self, len: usize) -> i64 {
        let record = self.record(len);
        let result = match read_restore(&record) {
            Ok((state_version, state)) => self.take_over(state_version, state),
            Err(malformed) => Err(malformed.to_string()),
        };
        self.result(result)
    }

    /// `holeshot_describe`.
    pub fn describe(&mut self) -> i64 {
        let description = self.game.describe().to_vec();
        self.answer(description)
    }

    fn take_over(&mut self, state_version: u32, state: &[u8]) -> Result<(), String> {
        let (state, own) = split_own(state);
        let version = DragRace::manifest().state_version;
        let mut state = state.to_vec();
        match self.orders.misdeed {
            Misdeed::RefusesState => return Err("misrule was told to refuse every state".into()),
            Misdeed::RefusesOwnState if own.is_some() => return Err("misrule was told to refuse its own state".into()),
            Misdeed::OtherTree if state_version == version => state = with_other_tree(&state)?,
            Misdeed::OtherTree if state_version == version + 1 => {}
            _ if state_version == version => {}
            _ => return Err(format!("a state of version {state_version} cannot be read")),
        }
        let mut record = Vec::new();
        write_restore(version, &state, &mut record);
        self.game.restore(&record)?;
        self.ticks = 0;
        let own = own.unwrap_or_default();
        self.ballast_bytes = own.len() as u32;
        let frames = own.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
        self.throttle_frames = if self.does(Misdeed::OtherTree) { frames.collect() } else { Vec::new() };
        Ok(())
    }

    fn note_throttle(&mut self, tick: &TickReader<'_>) {
        self.throttle_frames.resize(tick.players(), 0);
        for (frames, input) in self.throttle_frames.iter_mut().zip(tick.inputs()) {
            let is_open = input.bytes.first().is_some_and(|throttle| *throttle > THROTTLE_OPEN);
            *frames += u32::from(is_open && input.status != InputStatus::Absent);
        }
    }

    fn record(&self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.buffer.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }

    fn answer(&mut self, bytes: Vec<u8>) -> i64 {
        self.answer = bytes;
        pack_span(self.answer.as_ptr() as u32, self.answer.len() as u32)
    }

    fn result(&mut self, result: Result<(), String>) -> i64 {
        self.answer(result.err().unwrap_or_default().into_bytes())
    }
}

/// The drag race's state with the tree that it has not.
fn with_other_tree(state: &[u8]) -> Result<Vec<u8>, String> {
    let (head, race) = state.split_at_checked(STATE_HEAD_BYTES).ok_or("the state is empty")?;
    let mut race: DragRace = postcard::from_bytes(race).map_err(|error| error.to_string())?;
    let other = match race.race().tree() {
        TreeKind::Pro => TreeKind::Sportsman,
        TreeKind::Sportsman => TreeKind::Pro,
    };
    race.race_mut().set_tree(other);
    postcard::to_extend(&race, head.to_vec()).map_err(|error| error.to_string())
}

/// Appends what only these rules have: the bytes and the ballast, how many, and the tag.
fn push_own(state: &mut Vec<u8>, own: impl IntoIterator<Item = u8>, ballast_bytes: usize) {
    let race_bytes = state.len();
    state.reserve_exact(ballast_bytes + 128);
    state.extend(own);
    state.resize(state.len() + ballast_bytes, 7);
    let own_bytes = (state.len() - race_bytes) as u32;
    state.extend_from_slice(&own_bytes.to_le_bytes());
    state.extend_from_slice(&OWN.to_le_bytes());
}

fn split_own(state: &[u8]) -> (&[u8], Option<&[u8]>) {
    let split = || {
        let (rest, tag) = state.split_last_chunk::<4>()?;
        let (rest, len) = rest.split_last_chunk::<4>()?;
        let start = rest.len().checked_sub(u32::from_le_bytes(*len) as usize)?;
        (u32::from_le_bytes(*tag) == OWN).then(|| rest.split_at(start))
    };
    split().map_or((state, None), |(state, own)| (state, Some(own)))
}

/// Appends a public event to an output record.
fn push_event(output: &mut Vec<u8>, name: &str, data: &[u8]) {
    if let Some(items) = output.first_chunk_mut::<4>() {
        *items = (u32::from_le_bytes(*items) + 1).to_le_bytes();
    }
    output.extend_from_slice(&[PUBLIC_EVENT, name.len() as u8, 0, 0]);
    output.extend_from_slice(&(data.len() as u32).to_le_bytes());
    for bytes in [name.as_bytes(), data] {
        output.extend_from_slice(bytes);
        output.resize(output.len().next_multiple_of(4), 0);
    }
}
