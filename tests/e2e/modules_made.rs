//! Rules modules for these tests. From `tests/modules/tally.wat`: with another manifest or length, or broken in one way at one frame. From
//! `tests/modules/misrule`: the drag race, which misbehaves as ordered.

use misrule::{Misdeed, Orders, When};

/// `tests/modules/misrule` as `build.rs` built it.
const MISRULE: &[u8] = include_bytes!(env!("HOLESHOT_MISRULE_WASM"));

/// The drag race, with orders.
pub(crate) fn misrule(orders: Orders) -> Vec<u8> {
    misrule::wasm(MISRULE, orders)
}

/// Orders with a serial number of their own for each misdeed and time.
pub(crate) const fn orders(misdeed: Misdeed, when: When, number: u32) -> Orders {
    Orders { misdeed, when, number, serial: misdeed as u32 + 100 * when as u32 + 1_000 }
}

/// Other rules, which take the drag race's state over.
pub(crate) const OTHER_TREE: Orders = orders(Misdeed::OtherTree, When::InFrame, 0);

/// More ticks than a trial has: those since a checkpoint and those beyond. What goes wrong after so many goes wrong on probation.
pub(crate) const TRIAL_TICKS_MAX: u32 = 80;

/// A bad module and how it is found out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bad {
    pub(crate) orders: Orders,
    /// The kind of refusal or fault.
    pub(crate) kind: &'static str,
    /// Words of the message.
    pub(crate) words: &'static str,
    /// A function that is in the backtrace; empty if there is none.
    pub(crate) function: &'static str,
}

impl Bad {
    pub(crate) const fn new(orders: Orders, kind: &'static str, words: &'static str) -> Self {
        Self { orders, kind, words, function: "" }
    }

    pub(crate) const fn within(self, function: &'static str) -> Self {
        Self { function, ..self }
    }
}

/// Modules that fail in their trial, whenever it is.
pub(crate) fn bad_in_trial() -> Vec<Bad> {
    use Misdeed as M;
    let at_once = |misdeed, kind, words| Bad::new(orders(misdeed, When::FromFrame, 0), kind, words);
    vec![
        at_once(M::Traps, "trap", "misrule was told to trap in frame").within("misdeeds::traps"),
        // Later than any frame that is recorded, but within the trial.
        Bad::new(orders(M::Traps, When::AfterTicks, 24), "trap", "misrule was told to trap in frame")
            .within("misdeeds::traps"),
        at_once(M::Spins, "overrun", "endless loop").within("misdeeds::spins"),
        at_once(M::EatsMemory, "memory_exceeded", "4194304 bytes").within("misdeeds::eats_memory"),
        at_once(M::Recurses, "trap", "call stack exhausted").within("misdeeds::recurses"),
        at_once(M::WildTickAddress, "bad_span", "outside the memory"),
        at_once(M::WildTickLength, "bad_span", "outside the memory"),
        at_once(M::WildSave, "bad_span", "holeshot_save"),
        at_once(M::WildBuffer, "bad_span", "holeshot_buffer"),
        at_once(M::NoRecord, "bad_output", "cannot be used"),
        at_once(M::NoJson, "bad_output", "not JSON"),
        at_once(M::ForgedEvent, "bad_output", "reserved for the host"),
        at_once(M::RefusesState, "state_refused", "misrule was told to refuse every state"),
        at_once(M::RefusesOwnState, "state_refused", "misrule was told to refuse its own state"),
        at_once(M::ForgetsTicks, "state_differs", "saved again"),
        Bad::new(orders(M::Grows, When::InFrame, 48 << 10), "bad_span", "1048576"),
        at_once(M::OtherTickHz, "incompatible", "tick_hz"),
        at_once(M::OtherInput, "incompatible", "input_bytes_max"),
        at_once(M::OtherPlayers, "incompatible", "player slots"),
    ]
}

/// Modules that pass their trial and fail on probation; in parts, each of as many as fit into a race one after the other.
pub(crate) fn bad_on_probation() -> Vec<Vec<Bad>> {
    use Misdeed as M;
    let later = |misdeed, kind, words| Bad::new(orders(misdeed, When::AfterTicks, TRIAL_TICKS_MAX), kind, words);
    vec![
        vec![
            later(M::Traps, "trap", "misrule was told to trap in frame").within("misdeeds::traps"),
            later(M::WildTickAddress, "bad_span", "outside the memory"),
            later(M::NoJson, "bad_output", "not JSON"),
        ],
        vec![
            later(M::Spins, "fuel_exhausted", "endless loop").within("misdeeds::spins"),
            later(M::WildTickLength, "bad_span", "outside the memory"),
            later(M::ForgedEvent, "bad_output", "reserved for the host"),
        ],
        vec![
            later(M::EatsMemory, "memory_exceeded", "4194304 bytes").within("misdeeds::eats_memory"),
            later(M::NoRecord, "bad_output", "cannot be used"),
            // Found when the probation is over and the state is saved; so is the last one.
            later(M::WildSave, "bad_span", "holeshot_save"),
        ],
        vec![
            later(M::Recurses, "trap", "call stack exhausted").within("misdeeds::recurses"),
            Bad::new(orders(M::Leaks, When::InFrame, 0), "memory_exceeded", "4194304 bytes"),
            Bad::new(orders(M::Grows, When::InFrame, 7_200), "bad_span", "1048576"),
        ],
    ]
}

const TALLY: &str = include_str!("../modules/tally.wat");

/// Name of the module of [`short`].
pub(crate) const SHORT: &str = "tally-short";

/// Where the manifest begins in the module's memory, and what follows it.
const MANIFEST_AT: usize = 16;
const AFTER_MANIFEST_AT: usize = 256;

/// A tally that differs from the one in the file.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Name in the manifest.
    pub(crate) name: String,
    /// More fields of the manifest, with their commas.
    pub(crate) manifest: String,
    /// Fewest players.
    pub(crate) players_min: u16,
    /// Frames until the results.
    pub(crate) frames: u32,
    /// Length of the snapshot, if it is not that of the tallies.
    pub(crate) snapshot_bytes: Option<u32>,
    /// Whether the first player has a snapshot of its own.
    pub(crate) has_own: bool,
    /// Code at the beginning of each tick; `(global.get $frames)` is the frame plus 1.
    pub(crate) each_tick: String,
    /// Internal events that each tick tells, numbered through the game in the tally of the first player, which nobody's input may change.
    pub(crate) numbered_per_tick: u32,
}

impl Tally {
    /// A tally of this name and length.
    pub(crate) fn new(name: &str, frames: u32) -> Self {
        Self {
            name: name.into(),
            manifest: String::new(),
            players_min: 1,
            frames,
            snapshot_bytes: None,
            has_own: false,
            each_tick: String::new(),
            numbered_per_tick: 0,
        }
    }

    /// With more players to be waited for.
    pub(crate) fn with_players_min(mut self, players_min: u16) -> Self {
        self.players_min = players_min;
        self
    }

    /// With code that runs in one frame.
    pub(crate) fn at_frame(mut self, frame: u32, code: &str) -> Self {
        let counted = frame + 1;
        self.each_tick = format!("(if (i32.eq (global.get $frames) (i32.const {counted})) (then {code}))");
        self
    }

    /// With code that runs in one frame and in all that follow.
    pub(crate) fn since_frame(mut self, frame: u32, code: &str) -> Self {
        self.each_tick = format!("(if (i32.gt_u (global.get $frames) (i32.const {frame})) (then {code}))");
        self
    }

    /// With code that runs in every tick of an instance after its first `ticks`, whatever their frames: the count is at an address that no save
    /// holds. A trial has at most 75 ticks.
    pub(crate) fn after_ticks(mut self, ticks: u32, code: &str) -> Self {
        self.each_tick = format!(
            "(i32.store (i32.const 300000) (i32.add (i32.load (i32.const 300000)) (i32.const 1)))
            (if (i32.gt_u (i32.load (i32.const 300000)) (i32.const {ticks})) (then {code}))"
        );
        self
    }

    /// With a cutscene and a countdown.
    pub(crate) fn with_start(mut self, cutscene_ms: u32, countdown_steps: u32, countdown_step_ms: u32) -> Self {
        self.manifest = format!(
            ",\"cutscene_ms\":{cutscene_ms},\"countdown_steps\":{countdown_steps},\"countdown_step_ms\":{countdown_step_ms}"
        );
        self
    }

    /// With events `rules.numbered` in each tick, whose data count from 0. How many there were is the first player's result.
    pub(crate) fn with_numbered(mut self, per_tick: u32) -> Self {
        self.numbered_per_tick = per_tick;
        self
    }

    /// With snapshots of 8,000 bytes: the tallies and what happens to follow them in the memory.
    pub(crate) fn with_wide_snapshot(mut self) -> Self {
        self.snapshot_bytes = Some(8_000);
        self
    }

    /// With snapshots of 2,000 bytes, two datagrams, of which four change in each tick; and the first player sees other ones than all others.
    pub(crate) fn with_views(mut self) -> Self {
        self.snapshot_bytes = Some(2_000);
        self.has_own = true;
        // What a save left in the memory is no part of the game.
        self.each_tick = "(memory.fill (i32.const 4160) (i32.const 0) (i32.const 128))
            (i32.store
            (i32.add (i32.const 4400) (i32.rem_u (i32.mul (global.get $frames) (i32.const 52)) (i32.const 1600)))
            (i32.mul (global.get $frames) (i32.const 0x9e3779b1)))"
            .into();
        self
    }

    /// The module.
    pub(crate) fn wasm(&self) -> Vec<u8> {
        let manifest = format!(
            "{{\"name\":\"{}\",\"version\":\"1.0.0\",\"state_version\":1,\"players_min\":{},\"players_max\":8,\"input_bytes_max\":1{}}}",
            self.name, self.players_min, self.manifest
        );
        assert!(MANIFEST_AT + manifest.len() <= AFTER_MANIFEST_AT, "{} bytes", manifest.len());
        let text = replaced(
            TALLY,
            &between(TALLY, "\"{\\\"name\\\"", "}\")"),
            &format!("\"{}\")", manifest.replace('"', "\\\"")),
        );
        let text = replaced(
            &text,
            "(call $span (i32.const 16) (i32.const 122))",
            &format!("(call $span (i32.const 16) (i32.const {}))", manifest.len()),
        );
        let text = replaced(
            &text,
            "(i32.eq (global.get $frames) (i32.const 100))",
            &format!("(i32.eq (global.get $frames) (i32.const {}))", self.frames),
        );
        let first = "(global.set $frames (i32.add (i32.load (i32.const 16384)) (i32.const 1)))";
        let text = replaced(&text, first, &format!("{first}\n{}", self.each_tick));
        let text = if self.numbered_per_tick == 0 { text } else { with_numbered(&text, self.numbered_per_tick) };
        let text = match self.snapshot_bytes {
            None => text,
            Some(bytes) => replaced(
                &text,
                "(call $text (i32.const 4096) (i32.shl (global.get $players) (i32.const 2)))",
                &format!("(call $text (i32.const 4096) (i32.const {bytes}))"),
            ),
        };
        let text = if self.has_own { with_own(&text) } else { text };
        wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// The first player's snapshot begins further up in the memory than that for all.
fn with_own(text: &str) -> String {
    let results = ";; The results after 100 frames.";
    let code = "(local.set $start (global.get $end))
        (local.set $data (call $item (i32.const 2) (i32.const 0) (i32.const 0)))
        (call $text (i32.const 4396) (i32.const 1900))
        (call $item_end (i32.add (local.get $start) (i32.const 4)) (local.get $data))";
    replaced(text, results, &format!("{code}\n{results}"))
}

fn with_numbered(text: &str, per_tick: u32) -> String {
    let last_text = "(data (i32.const 472) \"a tally begins\")";
    let text = replaced(text, last_text, &format!("{last_text}\n(data (i32.const 496) \"numbered\")"));
    let results = ";; The results after 100 frames.";
    let code = format!(
        "(local.set $left (i32.const {per_tick}))
        (loop $numbered
          (if (local.get $left)
            (then
              (local.set $start (global.get $end))
              (local.set $data (call $item (i32.const 4) (i32.const 496) (i32.const 8)))
              (call $decimal (i32.load (i32.const 4096)))
              (call $item_end (i32.add (local.get $start) (i32.const 4)) (local.get $data))
              (call $add (i32.const 0) (i32.const 1))
              (local.set $left (i32.sub (local.get $left) (i32.const 1)))
              (br $numbered))))"
    );
    replaced(&text, results, &format!("{code}\n{results}"))
}

/// A tally of one second.
pub(crate) fn short() -> Vec<u8> {
    Tally::new(SHORT, 50).wasm()
}

/// The tally of the file.
pub(crate) fn tally() -> Vec<u8> {
    wat::parse_str(TALLY).unwrap()
}

fn between(text: &str, first: &str, last: &str) -> String {
    let start = text.find(first).unwrap();
    let end = start + text[start..].find(last).unwrap() + last.len();
    text[start..end].to_owned()
}

fn replaced(text: &str, what: &str, with: &str) -> String {
    assert_eq!(text.matches(what).count(), 1, "{what} in the text of tally");
    text.replacen(what, with, 1)
}
