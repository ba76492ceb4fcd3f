//! A test bench: drives rules from a plain `#[test]`, with no host, no socket and no clock.
//!
//! ```
//! # use holeshot_guest::{Manifest, Output, PlayerResult, Rules, Setup, Tick};
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct Count { count: u32 }
//! # impl Rules for Count {
//! #     type Input = bool;
//! #     type Snapshot = u32;
//! #     fn manifest() -> Manifest { Manifest::new("count", "1", 1..=2, 1) }
//! #     fn new(_: &Setup) -> Result<Self, String> { Ok(Self { count: 0 }) }
//! #     fn tick(&mut self, tick: &Tick<'_, bool>, out: &mut Output<'_, Self>) {
//! #         self.count += tick.players.iter().filter(|p| p.input).count() as u32;
//! #         out.snapshot(&self.count);
//! #         if self.count >= 5 { out.public_event("five", &self.count); }
//! #     }
//! # }
//! use holeshot_guest::bench::Bench;
//!
//! let mut bench = Bench::<Count>::new(1, "", &[("Ada", ""), ("Ben", "")]).unwrap();
//! bench.join_all();
//! bench.script(0, 0..10, true); // player 0 presses in frames 0 to 9
//! let five = bench.run_to_event("five", 100).unwrap();
//! assert_eq!((five.frame, bench.rules().count), (4, 5));
//! ```
//!
//! A bench speaks the same records as a host, so what passes here is what a host sees. In every frame it also saves the state, restores it
//! into a second instance and demands that both go on with equal bytes: a field that serde does not carry shows up in the frame where it matters.

use std::collections::BTreeMap;
use std::ops::Range;

use holeshot_abi::{
    Action, Change, ChangeKind, InputStatus, Item, LeaveReason, OutputReader, PlayerInput, PlayerResult, PlayerSetup,
    Setup, TickRecord, write_restore,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::export::Instance;
use crate::rules::Rules;

/// An event that left the rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// In which frame.
    pub frame: u32,
    /// Whether players see it; internal otherwise.
    pub public: bool,
    /// Its name.
    pub name: String,
    /// Its data.
    pub data: Value,
}

/// A snapshot that left the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotBytes {
    /// In which frame.
    pub frame: u32,
    /// For which player; none when shared.
    pub player: Option<u16>,
    /// The bytes, as a player gets them.
    pub bytes: Vec<u8>,
}

/// Why a run ended before what it waited for. The text tells how far it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReached(String);

impl core::fmt::Display for NotReached {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for NotReached {}

/// What decides a player's input, frame by frame; see [`Bench::control`].
type Control<I> = Box<dyn FnMut(u32, Option<&[u8]>) -> Option<I>>;

/// A room of rules `R` driven by a test.
pub struct Bench<R: Rules> {
    setup: Setup,
    instance: Instance<R>,
    // Restored from the other one's state before every tick.
    shadow: Option<Instance<R>>,
    frame: u32,
    stride: usize,
    scripts: Vec<BTreeMap<u32, Option<R::Input>>>,
    controls: Vec<Option<Control<R::Input>>>,
    last_inputs: Vec<Option<(u32, Vec<u8>)>>,
    changes: Vec<Change>,
    actions: Vec<(u16, String)>,
    events: Vec<Event>,
    snapshots: Vec<SnapshotBytes>,
    results: Option<Vec<PlayerResult<Value>>>,
    records: Vec<Vec<u8>>,
}

impl<R: Rules> core::fmt::Debug for Bench<R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Bench").field("frame", &self.frame).field("events", &self.events).finish_non_exhaustive()
    }
}

impl<R: Rules> Bench<R> {
    /// Begins a room with a seed, options (JSON text or empty) and players (name, data as JSON text or empty).
    ///
    /// # Errors
    /// The rules' refusal.
    ///
    /// # Panics
    /// If the manifest is out of its ranges.
    pub fn new(seed: u64, options: &str, players: &[(&str, &str)]) -> Result<Self, String> {
        let manifest = R::manifest();
        if let Err(error) = manifest.validate() {
            panic!("{error}");
        }
        let setup = Setup {
            seed,
            tick_hz: manifest.tick_hz,
            options: options.into(),
            players: players.iter().map(|&(name, data)| PlayerSetup { name: name.into(), data: data.into() }).collect(),
        };
        Self::with_setup(&setup)
    }

    /// Begins a room with a setup.
    ///
    /// # Errors
    /// The rules' refusal, or a setup that the boundary does not allow.
    pub fn with_setup(setup: &Setup) -> Result<Self, String> {
        let mut record = Vec::new();
        setup.write(&mut record).map_err(|malformed| malformed.to_string())?;
        let (mut instance, mut shadow) = (Instance::new(), Instance::new());
        instance.init(&record)?;
        shadow.init(&record)?;
        let players = setup.players.len();
        Ok(Self {
            setup: setup.clone(),
            instance,
            shadow: Some(shadow),
            frame: 0,
            stride: R::manifest().input_stride_bytes(),
            scripts: vec![BTreeMap::new(); players],
            controls: (0..players).map(|_| None).collect(),
            last_inputs: vec![None; players],
            changes: Vec::new(),
            actions: Vec::new(),
            events: Vec::new(),
            snapshots: Vec::new(),
            results: None,
            records: Vec::new(),
        })
    }

    /// Leaves out the comparison with a restored instance in every frame, for runs where speed matters.
    pub fn without_restore_check(&mut self) -> &mut Self {
        self.shadow = None;
        self
    }

    /// Goes on under other rules, as a host does when rules are swapped under a running room: they begin with the same setup and take over the
    /// state, by [`Rules::migrate`] if its version is another. Scripts, controls, events and what else the bench knows stay.
    ///
    /// # Errors
    /// The rules refuse the setup or the state.
    ///
    /// # Panics
    /// If the manifest is out of its ranges, or asks for inputs of another size: a host would not swap these two.
    pub fn swap<S: Rules<Input = R::Input>>(mut self) -> Result<Bench<S>, String> {
        let manifest = S::manifest();
        if let Err(error) = manifest.validate() {
            panic!("{error}");
        }
        assert!(
            manifest.input_bytes_max == R::manifest().input_bytes_max,
            "inputs of at most {} and of at most {} bytes",
            R::manifest().input_bytes_max,
            manifest.input_bytes_max
        );
        let mut bench = Bench::<S>::with_setup(&self.setup)?;
        let mut record = Vec::new();
        write_restore(R::manifest().state_version, self.instance.save(), &mut record);
        bench.instance.restore(&record)?;
        if self.shadow.is_none() {
            bench.shadow = None;
        }
        bench.frame = self.frame;
        bench.scripts = self.scripts;
        bench.controls = self.controls;
        bench.last_inputs = self.last_inputs;
        bench.changes = self.changes;
        bench.actions = self.actions;
        bench.events = self.events;
        bench.snapshots = self.snapshots;
        bench.results = self.results;
        bench.records = self.records;
        Ok(bench)
    }

    /// Lets a player join before the next tick.
    pub fn join(&mut self, player: u16) -> &mut Self {
        self.changes.push(Change { player, kind: ChangeKind::Joined });
        self
    }

    /// Lets every player join before the next tick.
    pub fn join_all(&mut self) -> &mut Self {
        for player in 0..self.scripts.len() {
            self.join(player as u16);
        }
        self
    }

    /// Lets a player leave before the next tick. Its input is absent from then on.
    pub fn leave(&mut self, player: u16, reason: LeaveReason) -> &mut Self {
        self.changes.push(Change { player, kind: ChangeKind::Left(reason) });
        let slot = usize::from(player);
        self.scripts[slot].clear();
        self.controls[slot] = None;
        self.last_inputs[slot] = None;
        self
    }

    /// Hands an action (JSON text) to the next tick.
    pub fn action(&mut self, player: u16, json: &str) -> &mut Self {
        self.actions.push((player, json.into()));
        self
    }

    /// Lets a player send the same input in a range of frames. What was scripted for them before is replaced.
    pub fn script(&mut self, player: u16, frames: Range<u32>, input: R::Input) -> &mut Self {
        for frame in frames {
            self.scripts[usize::from(player)].insert(frame, Some(input.clone()));
        }
        self
    }

    /// Lets a player's inputs be lost in a range of frames, whatever a script or control says: the rules see a repeat.
    pub fn lose(&mut self, player: u16, frames: Range<u32>) -> &mut Self {
        for frame in frames {
            self.scripts[usize::from(player)].insert(frame, None);
        }
        self
    }

    /// Lets a function decide a player's input where no script does. It gets the frame and the snapshot that the player saw last,
    /// and returns none where the player sends nothing.
    pub fn control(
        &mut self,
        player: u16,
        control: impl FnMut(u32, Option<&[u8]>) -> Option<R::Input> + 'static,
    ) -> &mut Self {
        self.controls[usize::from(player)] = Some(Box::new(control));
        self
    }

    /// Lets a function decide a player's input where no script does, as [`control`](Bench::control), from the snapshot itself.
    ///
    /// # Panics
    /// In a tick, if the rules send snapshots that are not of their own type.
    pub fn answer(
        &mut self,
        player: u16,
        mut answer: impl FnMut(u32, Option<R::Snapshot>) -> Option<R::Input> + 'static,
    ) -> &mut Self
    where
        R::Snapshot: DeserializeOwned,
    {
        self.control(player, move |frame, seen| {
            answer(frame, seen.map(|bytes| postcard::from_bytes(bytes).expect("a snapshot of the rules' own type")))
        })
    }

    /// Runs one tick.
    ///
    /// # Panics
    /// If the rules panic, if what leaves them breaks the boundary's specification, or if a restored state does not go on alike.
    pub fn tick(&mut self) {
        assert!(
            self.results.is_none(),
            "the game finished in frame {}; there is no frame {}",
            self.frame - 1,
            self.frame
        );
        let frame = self.frame;
        let players = self.scripts.len();
        let mut record = TickRecord::default();
        record.begin(frame, players, self.stride);
        for player in 0..players {
            let seen = self
                .snapshots
                .iter()
                .rev()
                .find(|s| s.player.is_none_or(|p| usize::from(p) == player))
                .map(|s| s.bytes.as_slice());
            let decided = match self.scripts[player].remove(&frame) {
                Some(scripted) => scripted,
                None => self.controls[player].as_mut().and_then(|control| control(frame, seen)),
            };
            if let Some(input) = decided {
                let bytes = postcard::to_allocvec(&input).expect("an input that postcard can write");
                self.last_inputs[player] = Some((frame, bytes));
            }
            if let Some((sent, bytes)) = &self.last_inputs[player] {
                let age_frames = u16::try_from(frame - sent).unwrap_or(u16::MAX);
                let status = if age_frames == 0 { InputStatus::Fresh } else { InputStatus::Repeated };
                let fits = record.set_input(player, PlayerInput { status, age_frames, bytes });
                assert!(
                    fits,
                    "an input of {} bytes; the manifest says at most {}",
                    bytes.len(),
                    R::manifest().input_bytes_max
                );
            }
        }
        for change in self.changes.drain(..) {
            assert!(record.push_change(change));
        }
        for (player, json) in self.actions.drain(..) {
            assert!(record.push_action(Action { player, json: &json }), "too many actions, or one that is too long");
        }

        if let Some(shadow) = &mut self.shadow {
            let mut restore = Vec::new();
            write_restore(R::manifest().state_version, self.instance.save(), &mut restore);
            shadow.restore(&restore).expect("a state that the rules saved a moment ago");
        }
        let output = self.instance.tick(record.bytes());
        let reader = match OutputReader::read(output, players) {
            Ok(reader) => reader,
            Err(malformed) => panic!("frame {frame}: {malformed}"),
        };
        for item in reader.items() {
            let json = |text: &str| serde_json::from_str(text).expect("JSON that serde_json wrote");
            match item {
                Item::SharedSnapshot(bytes) => {
                    self.snapshots.push(SnapshotBytes { frame, player: None, bytes: bytes.into() });
                }
                Item::Snapshot { player, bytes } => {
                    self.snapshots.push(SnapshotBytes { frame, player: Some(player), bytes: bytes.into() });
                }
                Item::PublicEvent { name, json: text } => {
                    self.events.push(Event { frame, public: true, name: name.into(), data: json(text) });
                }
                Item::InternalEvent { name, json: text } => {
                    self.events.push(Event { frame, public: false, name: name.into(), data: json(text) });
                }
                Item::Results(text) => {
                    self.results = Some(serde_json::from_str(text).expect("results as the boundary specifies them"));
                }
            }
        }
        if let Some(shadow) = &mut self.shadow {
            assert!(
                shadow.tick(record.bytes()) == output,
                "frame {frame}: rules restored from their saved state go on differently; does serde skip a field of the state?"
            );
        }
        self.records.push(record.bytes().to_vec());
        self.frame += 1;
    }

    /// Runs until `frame` is the next one to be ticked, or the game has finished.
    pub fn run_to_frame(&mut self, frame: u32) -> &mut Self {
        while self.frame < frame && self.results.is_none() {
            self.tick();
        }
        self
    }

    /// Runs until an event of this name leaves the rules, at most to frame `limit`.
    ///
    /// # Errors
    /// What happened instead.
    pub fn run_to_event(&mut self, name: &str, limit: u32) -> Result<Event, NotReached> {
        while self.frame < limit && self.results.is_none() {
            let before = self.events.len();
            self.tick();
            if let Some(event) = self.events[before..].iter().find(|event| event.name == name) {
                return Ok(event.clone());
            }
        }
        Err(self.not_reached(&format!("event `{name}`")))
    }

    /// Runs until the game has finished, at most to frame `limit`.
    ///
    /// # Errors
    /// What happened instead.
    pub fn run_to_results(&mut self, limit: u32) -> Result<&[PlayerResult<Value>], NotReached> {
        while self.frame < limit && self.results.is_none() {
            self.tick();
        }
        if self.results.is_none() {
            return Err(self.not_reached("the end of the game"));
        }
        Ok(self.results.as_deref().unwrap_or_default())
    }

    /// The next frame to be ticked.
    #[must_use]
    pub const fn frame(&self) -> u32 {
        self.frame
    }

    /// The state.
    #[must_use]
    pub fn rules(&self) -> &R {
        self.instance.rules().expect("a bench has begun its room")
    }

    /// Every event so far.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Every snapshot so far.
    #[must_use]
    pub fn snapshots(&self) -> &[SnapshotBytes] {
        &self.snapshots
    }

    /// The snapshot that a player saw last.
    pub fn last_snapshot<S: DeserializeOwned>(&self, player: u16) -> Option<S> {
        let last = self.snapshots.iter().rev().find(|s| s.player.is_none_or(|p| p == player))?;
        Some(postcard::from_bytes(&last.bytes).expect("a snapshot of the type asked for"))
    }

    /// The results, once the game has finished.
    #[must_use]
    pub fn results(&self) -> Option<&[PlayerResult<Value>]> {
        self.results.as_deref()
    }

    /// Every tick record so far: what a host would have given the module, for running the same game elsewhere.
    #[must_use]
    pub fn records(&self) -> &[Vec<u8>] {
        &self.records
    }

    fn not_reached(&self, what: &str) -> NotReached {
        let names: Vec<_> = self.events.iter().map(|event| format!("{}@{}", event.name, event.frame)).collect();
        NotReached(format!(
            "{what} was not reached by frame {}{}; events so far: {}",
            self.frame,
            if self.results.is_some() { ", where the game finished" } else { "" },
            if names.is_empty() { "none".into() } else { names.join(", ") }
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Output, Tick};
    use holeshot_abi::Manifest;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Log {
        lines: Vec<String>,
        #[serde(skip)]
        forgotten: u32,
        forget: bool,
    }

    impl Rules for Log {
        type Input = u8;
        type Snapshot = u32;

        fn manifest() -> Manifest {
            Manifest::new("log", "1", 1..=2, 1)
        }

        fn new(setup: &Setup) -> Result<Self, String> {
            if setup.options == "no" {
                return Err("options may not be \"no\"".into());
            }
            Ok(Self { lines: vec![], forgotten: 0, forget: setup.options == "forget" })
        }

        fn tick(&mut self, tick: &Tick<'_, u8>, out: &mut Output<'_, Self>) {
            let players: Vec<_> =
                tick.players.iter().map(|p| format!("{:?}/{}/{}", p.status, p.age_frames, p.input)).collect();
            self.lines.push(format!("{} {} {:?} {:?}", tick.frame, players.join(" "), tick.changes, tick.actions));
            self.forgotten += 1;
            out.snapshot(&if self.forget { self.forgotten } else { tick.frame });
            if tick.actions.iter().any(|a| a.json == "\"end\"") {
                out.finish(&[PlayerResult { player: 0, place: None, outcome: "ended".into(), data: 1 }]);
            }
        }
    }

    fn log(options: &str) -> Bench<Log> {
        Bench::new(1, options, &[("a", ""), ("b", "")]).unwrap()
    }

    #[test]
    fn rules_see_fresh_repeated_and_absent_inputs_and_everything_else_in_order() {
        let mut bench = log("");
        bench.join_all().script(0, 1..3, 7).lose(0, 2..3).action(1, "1");
        bench.answer(1, |frame, seen| (frame == 2).then_some(seen.unwrap_or(0) as u8));
        bench.run_to_frame(3).leave(0, LeaveReason::Quit);
        bench.tick();
        bench.action(0, "\"end\"");
        assert_eq!(bench.run_to_results(10).unwrap()[0].outcome, "ended");
        let expected = [
            "0 Absent/0/0 Absent/0/0 [Change { player: 0, kind: Joined }, Change { player: 1, kind: Joined }] [Action { player: 1, json: \"1\" }]",
            "1 Fresh/0/7 Absent/0/0 [] []",
            "2 Repeated/1/7 Fresh/0/1 [] []",
            "3 Absent/0/0 Repeated/1/1 [Change { player: 0, kind: Left(Quit) }] []",
            "4 Absent/0/0 Repeated/2/1 [] [Action { player: 0, json: \"\\\"end\\\"\" }]",
        ];
        assert_eq!(bench.rules().lines, expected);
        assert_eq!(bench.last_snapshot::<u32>(0), Some(4));
        let missing = bench.run_to_event("x", 10).unwrap_err().to_string();
        assert_eq!(missing, "event `x` was not reached by frame 5, where the game finished; events so far: none");
    }

    /// `Log` with one more field, from version 2 on.
    #[derive(Serialize, Deserialize)]
    struct Counted {
        lines: Vec<String>,
        ticks: u32,
    }

    /// What version 1 saved.
    #[derive(Deserialize)]
    struct Version1 {
        lines: Vec<String>,
        forget: bool,
    }

    impl Rules for Counted {
        type Input = u8;
        type Snapshot = u32;

        fn manifest() -> Manifest {
            Manifest { state_version: 2, ..Log::manifest() }
        }

        fn new(_: &Setup) -> Result<Self, String> {
            Ok(Self { lines: vec![], ticks: 0 })
        }

        fn tick(&mut self, tick: &Tick<'_, u8>, out: &mut Output<'_, Self>) {
            self.ticks += 1;
            self.lines.push(format!("{} {}", tick.frame, tick.players[0].input));
            out.snapshot(&self.ticks);
        }

        fn migrate(&mut self, state_version: u32, state: &[u8]) -> Result<(), String> {
            let former: Version1 = crate::read_state(state)?;
            if state_version != 1 || former.forget {
                return Err("a state that forgets is not taken".into());
            }
            self.ticks = former.lines.len() as u32;
            self.lines = former.lines;
            Ok(())
        }
    }

    #[test]
    fn a_room_goes_on_under_other_rules() {
        let mut bench = log("");
        bench.join_all().script(0, 2..4, 7).run_to_frame(3);
        let mut bench = bench.swap::<Counted>().unwrap();
        bench.run_to_frame(5);
        assert_eq!(bench.rules().lines[2..], ["2 Fresh/0/7 Absent/0/0 [] []", "3 7", "4 7"]);
        assert_eq!((bench.rules().ticks, bench.last_snapshot::<u32>(1), bench.snapshots().len()), (5, Some(5), 5));
        // The same version the other way about is another type's bytes, and a refusal has its reason.
        assert!(bench.swap::<Log>().unwrap_err().contains("cannot read version 2"));
        assert_eq!(log("forget").swap::<Counted>().unwrap_err(), "a state that forgets is not taken");
    }

    #[test]
    fn a_state_is_read_to_its_last_byte() {
        assert_eq!(crate::read_state::<(u8, bool)>(&[7, 1]), Ok((7, true)));
        assert!(crate::read_state::<(u8, bool)>(&[7]).unwrap_err().starts_with("the state cannot be read"));
        assert_eq!(crate::read_state::<u8>(&[7, 1, 2]).unwrap_err(), "2 bytes follow the state");
    }

    #[test]
    fn a_setup_is_refused_with_the_rules_words() {
        let refusal = |options: &str, players: &[(&str, &str)]| Bench::<Log>::new(1, options, players).unwrap_err();
        assert_eq!(refusal("no", &[("a", "")]), "options may not be \"no\"");
        assert_eq!(refusal("", &[("a", ""), ("b", ""), ("c", "")]), "log takes 1 to 2 players, not 3");
    }

    #[test]
    #[should_panic(expected = "frame 1: rules restored from their saved state go on differently")]
    fn a_field_that_serde_skips_is_found() {
        log("forget").run_to_frame(3);
    }

    #[test]
    fn a_state_of_another_version_is_refused_by_default() {
        let mut instance = Instance::<Log>::new();
        let mut record = Vec::new();
        let players = vec![PlayerSetup { name: "a".into(), data: String::new() }];
        Setup { seed: 1, tick_hz: 50, options: String::new(), players }.write(&mut record).unwrap();
        instance.init(&record).unwrap();
        let state = instance.save().to_vec();
        let mut restore = |version, state: &[u8]| {
            let mut record = Vec::new();
            write_restore(version, state, &mut record);
            instance.restore(&record)
        };
        assert!(restore(2, &state).unwrap_err().contains("cannot read version 2"));
        assert!(restore(1, &[]).is_err());
        assert!(restore(1, &state[..state.len() - 1]).is_err());
        assert!(restore(1, &[&state[..], &[0]].concat()).is_err());
        restore(1, &state).unwrap();
    }
}
