//! Rules modules for these tests. From `tests/modules/tally.wat`: with another manifest or length, or broken in one way at one frame. From
//! `tests/modules/misrule`: the drag race, which misbehaves as ordered.

use misrule::Orders;

/// `tests/modules/misrule` as `build.rs` built it.
const MISRULE: &[u8] = include_bytes!(env!("HOLESHOT_MISRULE_WASM"));

/// The drag race, with orders.
pub(crate) fn misrule(orders: Orders) -> Vec<u8> {
    misrule::wasm(MISRULE, orders)
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
    /// Code at the beginning of each tick; `(global.get $frames)` is the frame plus 1.
    pub(crate) each_tick: String,
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
            each_tick: String::new(),
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

    /// With a cutscene and a countdown.
    pub(crate) fn with_start(mut self, cutscene_ms: u32, countdown_steps: u32, countdown_step_ms: u32) -> Self {
        self.manifest = format!(
            ",\"cutscene_ms\":{cutscene_ms},\"countdown_steps\":{countdown_steps},\"countdown_step_ms\":{countdown_step_ms}"
        );
        self
    }

    /// With snapshots of 8,000 bytes: the tallies and what happens to follow them in the memory.
    pub(crate) fn with_wide_snapshot(mut self) -> Self {
        self.snapshot_bytes = Some(8_000);
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
        let text = match self.snapshot_bytes {
            None => text,
            Some(bytes) => replaced(
                &text,
                "(call $text (i32.const 4096) (i32.shl (global.get $players) (i32.const 2)))",
                &format!("(call $text (i32.const 4096) (i32.const {bytes}))"),
            ),
        };
        wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
    }
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
