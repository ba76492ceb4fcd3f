//! What players send and what they see: the input of one frame and the snapshot of one tick. Plain data, postcard on the wire; what is in sight is
//! packed in records of a fixed size, which are made once per tick and copied for each player who sees them.

use core::marker::PhantomData;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::map::Point;
use crate::weapon::Weapon;

/// What a player's hands do in one frame.
///
/// Every field is a position, not a push: an input that is repeated, because a datagram was lost, does nothing twice. A trigger that is held fires as
/// often as the weapon does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The stick to the right, -127 to 127. Beyond a length of 127 in any direction it is the same as at 127.
    pub move_x: i8,
    /// The stick downwards, -127 to 127.
    pub move_y: i8,
    /// Where to aim, in 65,536ths of a turn: 0 to the right, 16,384 downwards.
    pub aim: u16,
    /// The trigger is held.
    pub fire: bool,
}

/// A thing that a snapshot shows, as a record of a fixed size.
pub trait Record: Copy {
    /// Its size in bytes.
    const BYTES: usize;
    /// Appends it, little-endian.
    fn write(&self, out: &mut Vec<u8>);
    /// Reads one of [`BYTES`](Self::BYTES); `None` for one that is none.
    fn read(bytes: &[u8]) -> Option<Self>;
}

/// Records one after the other, as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records<T> {
    bytes: Vec<u8>,
    kind: PhantomData<T>,
}

impl<T> Default for Records<T> {
    fn default() -> Self {
        Self { bytes: Vec::new(), kind: PhantomData }
    }
}

impl<T: Record> Records<T> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() / T::BYTES
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Each of them. Bytes that are no record are left out.
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.bytes.chunks_exact(T::BYTES).filter_map(T::read)
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(crate) fn push(&mut self, record: T) {
        record.write(&mut self.bytes);
    }

    /// Appends some of other records, from one number to before another.
    pub(crate) fn extend(&mut self, from: &Self, numbers: core::ops::Range<usize>) {
        if let Some(bytes) = from.bytes.get(numbers.start * T::BYTES..numbers.end * T::BYTES) {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

impl<T> Serialize for Records<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de, T: Record> Deserialize<'de> for Records<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes<T>(PhantomData<T>);
        impl<T: Record> Visitor<'_> for Bytes<T> {
            type Value = Records<T>;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "bytes, a multiple of {}", T::BYTES)
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                if !bytes.len().is_multiple_of(T::BYTES) {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                Ok(Records { bytes: bytes.to_vec(), kind: PhantomData })
            }
        }
        deserializer.deserialize_bytes(Bytes(PhantomData))
    }
}

/// A fighter in sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FighterView {
    /// The player's slot.
    pub player: u8,
    /// Health, 1 to 100.
    pub health: u8,
    /// Shots do nothing to it: it has just come.
    pub protected: bool,
    /// It fires twice as fast.
    pub overdrive: bool,
    /// What it holds.
    pub weapon: Weapon,
    /// Where it is.
    pub at: Point,
    /// Where it aims, in 65,536ths of a turn, to a 256th.
    pub aim: u16,
}

/// A shot in sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShotView {
    /// Tells shots apart: the same one has the same number in every snapshot.
    pub number: u16,
    /// The slot of who fired.
    pub owner: u8,
    /// Where it is.
    pub at: Point,
    /// Where it flies, in 65,536ths of a turn, to a 256th.
    pub aim: u16,
}

/// What lies about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PickupKind {
    /// Gives health back.
    Medkit,
    /// Lets a weapon fire twice as fast for a while.
    Overdrive,
}

/// Something in sight that can be taken by walking over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PickupView {
    /// What it is.
    pub kind: PickupKind,
    /// Where it is.
    pub at: Point,
}

const PROTECTED: u8 = 1;
const OVERDRIVE: u8 = 2;
const SCATTER: u8 = 4;

impl Record for FighterView {
    const BYTES: usize = 8;

    fn write(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.protected, PROTECTED)
            | flag(self.overdrive, OVERDRIVE)
            | flag(self.weapon == Weapon::Scatter, SCATTER);
        let [x, y] = packed(self.at);
        out.extend_from_slice(&[self.player, flags, x[0], x[1], y[0], y[1], (self.aim >> 8) as u8, self.health]);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let &[player, flags, x0, x1, y0, y1, aim, health] = bytes else { return None };
        Some(Self {
            player,
            health,
            protected: flags & PROTECTED != 0,
            overdrive: flags & OVERDRIVE != 0,
            weapon: if flags & SCATTER != 0 { Weapon::Scatter } else { Weapon::Rifle },
            at: unpacked([x0, x1], [y0, y1]),
            aim: u16::from(aim) << 8,
        })
    }
}

impl Record for ShotView {
    const BYTES: usize = 8;

    fn write(&self, out: &mut Vec<u8>) {
        let number = self.number.to_le_bytes();
        let [x, y] = packed(self.at);
        out.extend_from_slice(&[number[0], number[1], self.owner, (self.aim >> 8) as u8, x[0], x[1], y[0], y[1]]);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let &[number0, number1, owner, aim, x0, x1, y0, y1] = bytes else { return None };
        Some(Self {
            number: u16::from_le_bytes([number0, number1]),
            owner,
            at: unpacked([x0, x1], [y0, y1]),
            aim: u16::from(aim) << 8,
        })
    }
}

impl Record for PickupView {
    const BYTES: usize = 5;

    fn write(&self, out: &mut Vec<u8>) {
        let [x, y] = packed(self.at);
        out.extend_from_slice(&[self.kind as u8, x[0], x[1], y[0], y[1]]);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let &[kind, x0, x1, y0, y1] = bytes else { return None };
        let kind = match kind {
            0 => PickupKind::Medkit,
            1 => PickupKind::Overdrive,
            _ => return None,
        };
        Some(Self { kind, at: unpacked([x0, x1], [y0, y1]) })
    }
}

/// Each coordinate in 16 bits, which hold every place of the arena.
fn packed(at: Point) -> [[u8; 2]; 2] {
    [at.x_mm, at.y_mm].map(|mm| (mm as u16).to_le_bytes())
}

fn unpacked(x: [u8; 2], y: [u8; 2]) -> Point {
    Point { x_mm: i32::from(u16::from_le_bytes(x)), y_mm: i32::from(u16::from_le_bytes(y)) }
}

/// A point as everything in a snapshot has it: each coordinate in 16 bits, so that nothing that is read is far away.
mod place {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::map::Point;

    pub(super) fn serialize<S: Serializer>(at: &Point, serializer: S) -> Result<S::Ok, S::Error> {
        (at.x_mm as u16, at.y_mm as u16).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Point, D::Error> {
        let (x_mm, y_mm) = <(u16, u16)>::deserialize(deserializer)?;
        Ok(Point { x_mm: x_mm.into(), y_mm: y_mm.into() })
    }
}

/// A player's own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// The player's slot.
    pub player: u8,
    /// Where it is, or was when it went down.
    #[serde(with = "place")]
    pub at: Point,
    /// Health, 0 to 100; 0 while it is down.
    pub health: u8,
    /// What it holds.
    pub weapon: Weapon,
    /// Until the weapon fires again, in ms; 0 when it is ready.
    pub reload_ms: u16,
    /// Until it comes back, in ms; 0 while it is up.
    pub respawn_ms: u16,
    /// How long shots do nothing to it yet, in ms.
    pub protected_ms: u16,
    /// How long it fires twice as fast yet, in ms.
    pub overdrive_ms: u16,
    /// Others whom it brought down.
    pub frags: u16,
    /// Times that it went down.
    pub deaths: u16,
}

/// Who is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The slot; of several the lowest.
    pub player: u8,
    /// Its frags, at least one.
    pub frags: u16,
}

/// The match at the end of a tick, as one player sees it: what is in sight. A spectator has no own state and sees everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The tick's number, from 0. Behind the room's frame by as many ticks as the host skipped.
    pub frame: u32,
    /// Time since the match began, at the end of the tick, in ms.
    pub time_ms: u32,
    /// Time until it ends, in ms.
    pub left_ms: u32,
    /// Who is ahead, once somebody is.
    pub leader: Option<Leader>,
    /// The player's own state; none for a spectator.
    pub you: Option<Own>,
    /// The other fighters in sight: near enough, and not behind a wall.
    pub fighters: Records<FighterView>,
    /// The shots near enough, one's own too.
    pub shots: Records<ShotView>,
    /// What lies about near enough.
    pub pickups: Records<PickupView>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_seen_comes_back() {
        let at = Point { x_mm: 63_999, y_mm: 2_400 };
        let mut snapshot = Snapshot { frame: 9, leader: Some(Leader { player: 3, frags: 1 }), ..Snapshot::default() };
        let fighter = FighterView {
            player: 63,
            health: 100,
            protected: true,
            overdrive: false,
            weapon: Weapon::Scatter,
            at,
            aim: 0xff00,
        };
        let shot = ShotView { number: 65_535, owner: 1, at, aim: 0x1200 };
        let pickup = PickupView { kind: PickupKind::Overdrive, at };
        snapshot.fighters.push(fighter);
        snapshot.shots.push(shot);
        snapshot.pickups.push(pickup);
        let back: Snapshot = postcard::from_bytes(&postcard::to_allocvec(&snapshot).unwrap()).unwrap();
        assert_eq!(back, snapshot);
        assert_eq!(back.fighters.iter().collect::<Vec<_>>(), [fighter]);
        assert_eq!(back.shots.iter().collect::<Vec<_>>(), [shot]);
        assert_eq!(back.pickups.iter().collect::<Vec<_>>(), [pickup]);
    }

    proptest! {
        #[test]
        fn other_bytes_are_refused_or_read_without_a_panic(bytes: Vec<u8>) {
            if let Ok(snapshot) = postcard::from_bytes::<Snapshot>(&bytes) {
                prop_assert!(snapshot.fighters.iter().count() <= snapshot.fighters.len());
                prop_assert!(snapshot.shots.iter().count() + snapshot.pickups.iter().count() <= bytes.len());
            }
        }
    }
}
