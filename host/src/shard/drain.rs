//! A host that drains: rooms whose game has not begun end, games that run go on to their end, and a room that has ended goes as soon as nobody is
//! missing. How long a host drains is the business of `server.rs`.

use holeshot_room::{Phase, PlayerView};

use super::Shard;

impl Shard {
    /// Begins to drain. Rooms that come later were on their way when it began, and end with those whose game has not begun.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        for index in 0..self.rooms.len() {
            self.drain_room(index);
        }
    }

    /// Ends a room that a draining host does not wait for. Of a host that does not drain, none.
    pub(super) fn drain_room(&mut self, index: usize) {
        if !self.draining {
            return;
        }
        let Some(slot) = self.rooms.get(index).and_then(Option::as_ref) else { return };
        let phase = slot.room.phase();
        let has_begun = phase >= Phase::Running;
        // The outcome was sent to whoever is connected, in the order of its WebSocket, before the goodbye. Who is not may come back for it until
        // the room closes by itself (`linger_s`).
        let is_told = phase.is_over()
            && slot.room.players().all(|player: PlayerView<'_>| player.left.is_some() || player.connected);
        if !has_begun || is_told {
            self.abort(index);
        }
    }
}
