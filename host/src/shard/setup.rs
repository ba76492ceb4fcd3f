//! A shard's part in setting a room up anew, because a ticket brought other data of its player: it says what the rules would have to be begun from, and
//! lets fresh ones take their place while the room gathers its players. They are begun elsewhere.

use std::sync::Arc;
use std::time::SystemTime;

use holeshot_room::Phase;
use holeshot_wire::RefusalCode;

use super::{Admission, Pass, RoomSlot, Shard, emit};
use crate::events::payload::{Payload, PlayerDataChanged};
use crate::rooms::NewSetup;

impl RoomSlot {
    /// Whether tickets' data still counts. A replay's setup is its journal's.
    fn takes_data(&self) -> bool {
        self.room.phase() == Phase::Gathering && self.feed.is_none()
    }
}

impl Shard {
    /// What rules would have to be begun anew from for a ticket's data, if they have to; or why the ticket opens nothing.
    pub(super) fn program_for(&mut self, room: &str, player: u16, pass: &Pass, data: &str) -> Admission {
        let index = self.index_of(room)?;
        self.check_pass(index, Some(player), pass, self.clock.now_us())?;
        let Some(slot) = self.rooms.get(index).and_then(Option::as_ref).filter(|slot| slot.takes_data()) else {
            return Ok(None);
        };
        let program = slot.rules.program();
        let is_new = program.setup().players.get(usize::from(player)).is_some_and(|found| found.data != data);
        Ok(is_new.then(|| Arc::clone(program)))
    }

    /// Whether rules that were begun anew may take the place of a room's. None once the room has gathered its players: then nothing is to be done.
    pub(super) fn check_setup(
        &self,
        index: usize,
        setup: Box<NewSetup>,
    ) -> Result<Option<Box<NewSetup>>, (RefusalCode, String)> {
        let Some(slot) = self.rooms.get(index).and_then(Option::as_ref).filter(|slot| slot.takes_data()) else {
            return Ok(None);
        };
        if Arc::ptr_eq(slot.rules.program(), &setup.base) {
            return Ok(Some(setup));
        }
        // Replaced by a swap in these milliseconds. The ticket is not used up.
        let reason = "the rules of the room were replaced at this moment; connect again";
        Err((RefusalCode::Internal, reason.into()))
    }

    /// Lets rules that were begun anew take the place of a room's, which has not seen a frame.
    pub(super) fn set_up(&mut self, index: usize, setup: NewSetup) {
        let NewSetup { rules, player, .. } = setup;
        let Some(slot) = self.rooms.get_mut(index).and_then(Option::as_mut) else { return };
        let was_on_probation = slot.rules.probation().is_some();
        slot.rules = rules;
        let program = Arc::clone(slot.rules.program());
        let setup = program.setup();
        slot.live.set_setup(Arc::new(setup.clone()));
        if was_on_probation {
            // Rules that took over before frame 0 have run nothing that could be undone; they are the room's only ones now.
            slot.live.rules.kept();
        }
        slot.journal.begin_anew(&slot.live, setup, &*program);
        let Some(found) = setup.players.get(usize::from(player)) else { return };
        let changed = PlayerDataChanged {
            player: player.into(),
            name: found.name.clone(),
            data: serde_json::from_str(&found.data).unwrap_or_default(),
        };
        let mut event = changed.event(Some(&slot.live.module), Some(&slot.live.id), SystemTime::now());
        if let Some(fields) = event.data.as_object_mut() {
            // As in every event of a room.
            fields.insert("room".into(), slot.live.id.as_str().into());
        }
        tracing::debug!(room = slot.live.id, player, "set up anew with the data of a ticket");
        emit(&self.sink, &self.counters, &slot.live.id, event);
    }
}
