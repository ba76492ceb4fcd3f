//! The trait that rules implement, and what a tick brings them and takes from them.

use core::borrow::Borrow;
use core::marker::PhantomData;

use holeshot_abi::{InputStatus, Manifest, OutputWriter, PlayerResult, Setup};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::ser::{SerializeSeq, Serializer};

pub use holeshot_abi::{Action, Change};

/// The rules of a game. The implementing type is the state of one room.
///
/// A room is a fold: the state after a tick follows from the state before it and from what the tick brings, and from nothing else.
pub trait Rules: Serialize + DeserializeOwned + Sized {
    /// What a player's controls say in one frame; postcard on the wire, at most the manifest's `input_bytes_max`.
    type Input: Serialize + DeserializeOwned + Default + Clone;
    /// The state of the room as players see it; postcard on the wire, at most 8 KiB.
    type Snapshot: Serialize;

    /// What the module says of itself. Must always be the same.
    fn manifest() -> Manifest;

    /// Begins a room.
    ///
    /// # Errors
    /// Why the setup is refused, for the person who made it: name the value and what is accepted.
    fn new(setup: &Setup) -> Result<Self, String>;

    /// Steps the game once.
    fn tick(&mut self, tick: &Tick<'_, Self::Input>, out: &mut Output<'_, Self>);

    /// Takes over the state that another version of this module saved. Called when its `state_version` is not that of
    /// [`manifest`](Rules::manifest). `self` is a fresh room of the same setup.
    ///
    /// This is where a room that runs under the former rules becomes one of these. The bytes are the former struct as postcard, so declare that
    /// struct with the fields it had, in their order, read it with [`read_state`](crate::read_state), and fill in what is new:
    ///
    /// ```
    /// # use holeshot_guest::{Manifest, Output, Rules, Setup, Tick, read_state};
    /// # use serde::{Deserialize, Serialize};
    /// /// What version 1 saved.
    /// #[derive(Deserialize)]
    /// struct Version1 {
    ///     laps: Vec<u32>,
    /// }
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Laps {
    ///     laps: Vec<u32>,
    ///     pit_stops: Vec<u32>,
    /// }
    /// # impl Rules for Laps {
    /// #     type Input = ();
    /// #     type Snapshot = ();
    /// #     fn manifest() -> Manifest { Manifest { state_version: 2, ..Manifest::new("laps", "2", 1..=1, 0) } }
    /// #     fn new(_: &Setup) -> Result<Self, String> { Ok(Self { laps: vec![0], pit_stops: vec![0] }) }
    /// #     fn tick(&mut self, _: &Tick<'_, ()>, _: &mut Output<'_, Self>) {}
    ///
    /// // in `impl Rules for Laps`, whose manifest says `state_version: 2`:
    /// fn migrate(&mut self, state_version: u32, state: &[u8]) -> Result<(), String> {
    ///     if state_version != 1 {
    ///         return Err(format!("state version {state_version} is not known; 1 and 2 are"));
    ///     }
    ///     let former: Version1 = read_state(state)?;
    ///     self.pit_stops = vec![0; former.laps.len()];
    ///     self.laps = former.laps;
    ///     Ok(())
    /// }
    /// # }
    /// # let mut laps = Laps { laps: vec![], pit_stops: vec![] };
    /// # laps.migrate(1, &[2, 7, 8]).unwrap();
    /// # assert_eq!((laps.laps, laps.pit_stops), (vec![7, 8], vec![0, 0]));
    /// ```
    ///
    /// Nothing may stay in `self` of a state that is then refused. Do not panic over bytes that do not fit: a refusal is told to whoever
    /// swaps the rules, and the room goes on under the former ones.
    ///
    /// # Errors
    /// Why that is not possible. The default knows no other version.
    fn migrate(&mut self, state_version: u32, state: &[u8]) -> Result<(), String> {
        let _ = state;
        Err(format!(
            "this module saves state version {}, and cannot read version {state_version}",
            Self::manifest().state_version
        ))
    }
}

/// Everything that happened since the last tick.
#[derive(Debug)]
pub struct Tick<'a, I> {
    /// The frame: 0 at the first tick, then rising by one, or by more after a tick that was skipped because it took too long. Rules that count
    /// time count their ticks.
    pub frame: u32,
    /// One entry per player slot, in order.
    pub players: &'a [PlayerTick<I>],
    /// Joins and leaves, in the order they happened. Players that are there when the game starts join in frame 0.
    pub changes: &'a [Change],
    /// The players' actions, in the order they came.
    pub actions: &'a [Action<'a>],
}

/// One player's controls in a tick.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlayerTick<I> {
    /// Where the input comes from.
    pub status: InputStatus,
    /// How old a repeated input is, in frames.
    pub age_frames: u16,
    /// The input; the default while it is absent.
    pub input: I,
}

/// Where rules put what leaves them.
#[derive(Debug)]
pub struct Output<'a, R: Rules> {
    writer: &'a mut OutputWriter,
    finished: &'a mut bool,
    rules: PhantomData<R>,
}

impl<'a, R: Rules> Output<'a, R> {
    pub(crate) fn new(writer: &'a mut OutputWriter, finished: &'a mut bool) -> Self {
        Self { writer, finished, rules: PhantomData }
    }

    /// The snapshot of this tick for every player that gets none of its own. Once per tick.
    pub fn snapshot(&mut self, snapshot: &R::Snapshot) {
        self.write_snapshot(None, snapshot);
    }

    /// The snapshot of this tick for one player, who sees something else than the others. Once per tick and player.
    pub fn snapshot_for(&mut self, player: u16, snapshot: &R::Snapshot) {
        self.write_snapshot(Some(player), snapshot);
    }

    /// An event for every player of the room, reliable and in order. `name`: words of `a-z 0-9 _` joined by single
    /// dots, beginning with a letter, 64 bytes at most. `data` becomes JSON.
    pub fn public_event(&mut self, name: &str, data: &impl Serialize) {
        written("an event's data", self.writer.push_event_with(true, name, |out| serde_json::to_writer(out, data)));
    }

    /// An event for the host's broker, where the manager and others subscribe.
    pub fn internal_event(&mut self, name: &str, data: &impl Serialize) {
        written("an event's data", self.writer.push_event_with(false, name, |out| serde_json::to_writer(out, data)));
    }

    /// Ends the game after this tick. Players may be left out. Once. Takes a slice, or an iterator that makes one result at a time.
    pub fn finish<D: Serialize>(&mut self, results: impl IntoIterator<Item = impl Borrow<PlayerResult<D>>>) {
        let results = results.into_iter();
        let written_out = self.writer.push_results_with(|out| {
            let mut serializer = serde_json::Serializer::new(out);
            let mut list = serializer.serialize_seq(None)?;
            for result in results {
                list.serialize_element(result.borrow())?;
            }
            list.end()
        });
        written("a result", written_out);
        *self.finished = true;
    }

    fn write_snapshot(&mut self, player: Option<u16>, snapshot: &R::Snapshot) {
        written(
            "the snapshot",
            self.writer.push_snapshot_with(player, |out| crate::canonical::to_postcard(snapshot, out)),
        );
    }
}

/// What cannot be serialised is a mistake in the rules, which their author must hear of: the panic names it in the host's log.
fn written<E: core::fmt::Display>(what: &str, result: Result<(), E>) {
    if let Err(error) = result {
        panic!("{what} cannot be serialised: {error}");
    }
}
