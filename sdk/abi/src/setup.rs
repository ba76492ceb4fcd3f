//! The setup record, which begins a room, and the restore record, which brings a saved state.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::bytes::{Cursor, Malformed, push_padded};
use crate::{OPTIONS_BYTES_MAX, PLAYER_DATA_BYTES_MAX, PLAYER_NAME_BYTES_MAX, PLAYERS_MAX};

/// What a room is begun with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The room's only randomness.
    pub seed: u64,
    /// Ticks per second, 1 to 128.
    pub tick_hz: u32,
    /// The room's options: JSON text, or empty.
    pub options: String,
    /// The player slots, 1 to [`PLAYERS_MAX`], in order.
    pub players: Vec<PlayerSetup>,
}

/// A player slot of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlayerSetup {
    /// The player's name for people, up to [`PLAYER_NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// What the player brings (car, team …): JSON text, or empty.
    pub data: String,
}

impl Setup {
    /// Writes the setup record, replacing what is in `out`.
    ///
    /// # Errors
    /// A field longer than the specification allows; `out` is then of no use.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let limit = |fine: bool, field, offset, problem| {
            if fine { Ok(()) } else { Err(Malformed { record: "setup", field, offset, problem }) }
        };
        limit((1..=PLAYERS_MAX).contains(&self.players.len()), "players", 12, "not 1 to 64")?;
        limit((1..=128).contains(&self.tick_hz), "tick_hz", 8, "not 1 to 128")?;
        limit(self.options.len() <= OPTIONS_BYTES_MAX, "options_len", 16, "longer than 16384 bytes")?;
        out.clear();
        out.extend_from_slice(&self.seed.to_le_bytes());
        out.extend_from_slice(&self.tick_hz.to_le_bytes());
        out.extend_from_slice(&(self.players.len() as u16).to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(self.options.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        push_padded(out, self.options.as_bytes());
        for player in &self.players {
            limit(player.name.len() <= PLAYER_NAME_BYTES_MAX, "name_len", out.len(), "longer than 64 bytes")?;
            limit(player.data.len() <= PLAYER_DATA_BYTES_MAX, "data_len", out.len(), "longer than 4096 bytes")?;
            out.extend_from_slice(&(player.name.len() as u16).to_le_bytes());
            out.extend_from_slice(&(player.data.len() as u16).to_le_bytes());
            push_padded(out, player.name.as_bytes());
            push_padded(out, player.data.as_bytes());
        }
        Ok(())
    }

    /// Reads a setup record.
    ///
    /// # Errors
    /// The first field that does not follow the specification.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("setup", bytes);
        let seed = cursor.u64("seed")?;
        let tick_hz = cursor.u32("tick_hz")?;
        let count = usize::from(cursor.u16("players")?);
        cursor.u16("reserved")?;
        if !(1..=PLAYERS_MAX).contains(&count) {
            return Err(cursor.malformed("players", "not 1 to 64"));
        }
        let options_len = cursor.u32("options_len")? as usize;
        cursor.u32("reserved")?;
        let options = cursor.padded_str("options", options_len)?.to_string();
        let mut players = Vec::with_capacity(count);
        for _ in 0..count {
            let name_len = usize::from(cursor.u16("name_len")?);
            let data_len = usize::from(cursor.u16("data_len")?);
            let name = cursor.padded_str("name", name_len)?.to_string();
            let data = cursor.padded_str("data", data_len)?.to_string();
            players.push(PlayerSetup { name, data });
        }
        cursor.end()?;
        Ok(Self { seed, tick_hz, options, players })
    }
}

/// Bytes of a restore record before the state.
pub const RESTORE_HEADER_BYTES: usize = 8;

/// Writes a restore record, replacing what is in `out`.
pub fn write_restore(state_version: u32, state: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&state_version.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(state);
}

/// Reads a restore record: the state's version and the state.
///
/// # Errors
/// A record shorter than its header.
pub fn read_restore(bytes: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let mut cursor = Cursor::new("restore", bytes);
    let state_version = cursor.u32("state_version")?;
    cursor.u32("reserved")?;
    Ok((state_version, cursor.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn setup_comes_back(
            seed: u64, tick_hz in 1u32..=128, options in ".{0,40}",
            players in proptest::collection::vec((".{0,16}", ".{0,40}"), 1..=64),
        ) {
            let players = players.into_iter().map(|(name, data)| PlayerSetup { name, data }).collect();
            let setup = Setup { seed, tick_hz, options, players };
            let mut bytes = Vec::new();
            setup.write(&mut bytes).unwrap();
            prop_assert_eq!(bytes.len() % 4, 0);
            prop_assert_eq!(Setup::read(&bytes).unwrap(), setup);
            for cut in 0..bytes.len() {
                prop_assert!(Setup::read(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = Setup::read(&bytes);
            let _ = read_restore(&bytes);
        }
    }

    #[test]
    fn too_long_fields_are_refused() {
        let player = |name: usize, data: usize| PlayerSetup { name: "n".repeat(name), data: "d".repeat(data) };
        let setup = |options: usize, players| Setup { seed: 1, tick_hz: 50, options: "o".repeat(options), players };
        let mut out = Vec::new();
        let field = |s: Setup, out: &mut Vec<u8>| s.write(out).unwrap_err().field;
        assert_eq!(field(setup(16_385, alloc::vec![player(1, 1)]), &mut out), "options_len");
        assert_eq!(field(setup(1, alloc::vec![]), &mut out), "players");
        assert_eq!(field(setup(1, alloc::vec![player(65, 1)]), &mut out), "name_len");
        assert_eq!(field(setup(1, alloc::vec![player(1, 4097)]), &mut out), "data_len");
    }
}
