//! What the rules are ordered to do, and how the orders get into a module's file. What comes of each misdeed is in `rules.rs` and `exports.rs`.

/// What precedes the orders in the module's file. Nothing else in it may look like this.
const MARK: [u8; 24] = *b"\x00misrule's orders follow";
/// The mark, the misdeed, when, a number, the serial number.
const BLOCK_BYTES: usize = 24 + 4 * 4;
/// Names of exports begin with this in the build, with the second in a patched file; those of the drag race that is linked in, with the third.
const EXPORTS: [&[u8; 9]; 3] = [b"misrule__", b"holeshot_", b"original_"];
/// The exports.
const NAMES: [&str; 8] = ["abi_version", "manifest", "buffer", "init", "tick", "save", "restore", "describe"];

/// The orders, as the build leaves them: honest, until a test patches them.
static BLOCK: [u8; BLOCK_BYTES] = {
    let mut block = [0; BLOCK_BYTES];
    let mut at = 0;
    while at < MARK.len() {
        block[at] = MARK[at];
        at += 1;
    }
    block
};

macro_rules! misdeeds {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What the rules do that they should not.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Misdeed {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Misdeed {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

misdeeds! {
    /// Nothing: the drag race, in another file.
    None,
    /// Nothing either: other rules, with the other tree and a new field in the state, which take over the drag race's state by `migrate`.
    OtherTree,
    /// Panics.
    Traps,
    /// Runs in an endless loop.
    Spins,
    /// Takes memory until there is none.
    EatsMemory,
    /// Takes 32 KiB more in each tick, and keeps them.
    Leaks,
    /// Calls itself without end.
    Recurses,
    /// Returns a span outside the memory from `tick`.
    WildTickAddress,
    /// Returns a span from `tick` that begins in the memory and is longer than it.
    WildTickLength,
    /// Returns a span outside the memory from `save`, always.
    WildSave,
    /// Returns an address outside the memory from `buffer`, always.
    WildBuffer,
    /// Returns an output that is no record.
    NoRecord,
    /// Sends an event whose data is not JSON.
    NoJson,
    /// Sends an event with a name of the host's own.
    ForgedEvent,
    /// Refuses every state.
    RefusesState,
    /// Refuses the states that it saved itself.
    RefusesOwnState,
    /// Saves how many ticks the instance ran, and does not restore it: what it saves is not what it took over.
    ForgetsTicks,
    /// Saves a state that is longer by `number` bytes with each tick, up to a little more than 1 MiB.
    Grows,
    /// Says that it was written for version 9.0 of the boundary.
    WrongAbi,
    /// Is a game of another name.
    OtherName,
    /// Ticks 60 times a second.
    OtherTickHz,
    /// Takes inputs of 8 bytes at most.
    OtherInput,
    /// Is for one player only.
    OtherPlayers,
}

/// When it does so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum When {
    /// In the tick of frame `number`, whichever instance runs it: again when it is run again.
    InFrame,
    /// In the tick before which this instance ran `number` others, since it began or took a state over: not again in another instance.
    AfterTicks,
    /// In every tick from frame `number` on.
    FromFrame,
}

/// What a module does, when, and under which serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orders {
    /// What.
    pub misdeed: Misdeed,
    /// When.
    pub when: When,
    /// Which frame, how many ticks, how many bytes.
    pub number: u32,
    /// Makes another file of the same rules; part of the version in the manifest.
    pub serial: u32,
}

impl Orders {
    /// An honest module.
    #[must_use]
    pub const fn honest(serial: u32) -> Self {
        Self { misdeed: Misdeed::None, when: When::InFrame, number: 0, serial }
    }

    /// The orders of this module.
    #[must_use]
    pub fn mine() -> Self {
        // Kept from the compiler, which would take the bytes of the build for those of the file.
        Self::read(std::hint::black_box(&BLOCK))
    }

    fn read(block: &[u8; BLOCK_BYTES]) -> Self {
        let word = |index: usize| {
            let at = MARK.len() + index * 4;
            u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        };
        let when = match word(1) {
            0 => When::InFrame,
            1 => When::AfterTicks,
            _ => When::FromFrame,
        };
        let misdeed = Misdeed::ALL.get(word(0) as usize).copied().unwrap_or(Misdeed::None);
        Self { misdeed, when, number: word(2), serial: word(3) }
    }
}

/// A module that does what it is ordered to, from the file of the build.
///
/// # Panics
/// If the file is not that of the build.
#[must_use]
pub fn wasm(built: &[u8], orders: Orders) -> Vec<u8> {
    let mut wasm = built.to_vec();
    let marks: Vec<usize> = places(&wasm, &MARK);
    assert_eq!(marks.len(), 1, "the mark is in the module {} times", marks.len());
    let words = [orders.misdeed as u32, orders.when as u32, orders.number, orders.serial];
    for (index, word) in words.into_iter().enumerate() {
        let at = marks[0] + MARK.len() + index * 4;
        wasm[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    // The drag race that is linked in may have exports of its own; these take their names.
    for [from, to] in [[EXPORTS[1], EXPORTS[2]], [EXPORTS[0], EXPORTS[1]]] {
        for name in NAMES {
            let from = [from, name.as_bytes()].concat();
            let places = places(&wasm, &from);
            assert!(to != EXPORTS[1] || !places.is_empty(), "the module exports no {}", String::from_utf8_lossy(&from));
            for at in places {
                wasm[at..at + to.len()].copy_from_slice(to);
            }
        }
    }
    wasm
}

fn places(bytes: &[u8], what: &[u8]) -> Vec<usize> {
    bytes.windows(what.len()).enumerate().filter(|(_, window)| *window == what).map(|(at, _)| at).collect()
}
