//! Which tickets opened which sessions of a room: one use, newer ones take over, clients come back. What is promised is in
//! [`crate::doors::tickets`]; whether a ticket is a valid one was decided there. All of this is the shard's, and is gone with the room.

use std::collections::{BTreeMap, VecDeque};

use holeshot_wire::RefusalCode;

use super::session::SessionId;

/// How long after it opened a session a ticket may do so again if nothing came from that session, in microseconds: as long as clients try to
/// come back by themselves. What the host answered may have been lost.
pub const REOPEN_WITHIN_US: u64 = 10_000_000;
/// Tickets with the same `iat` that one player may use: a matchmaker has made them within the same second. More are refused.
pub const TICKETS_PER_SECOND_MAX: usize = 64;
/// Used tickets of spectators that one room remembers until they expire: 16 for each place, 100 KiB. More spectators are refused until then.
pub const SPECTATOR_TICKETS_MAX: usize = 16 * super::SPECTATORS_MAX;

/// A ticket among all others: the first 128 bits of the BLAKE3 of who made it and of its `jti`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId([u8; 16]);

impl std::fmt::Debug for TicketId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketId({:02x?})", self.0.get(..4).unwrap_or_default())
    }
}

impl TicketId {
    /// The ticket `jti` of `iss`.
    #[must_use]
    pub fn of(iss: &str, jti: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        // With its length, so that no two pairs are the same bytes.
        hasher.update(&(iss.len() as u64).to_le_bytes()).update(iss.as_bytes()).update(jti.as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

/// What the room has to know of a ticket that was shown, and of the one that comes after it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pass {
    /// The ticket.
    pub ticket: TicketId,
    /// When it was made, or the first of those that it continues, in seconds since 1970.
    pub iat_s: u64,
    /// From when on it opens nothing anyway, in seconds since 1970.
    pub forget_s: u64,
    /// When it was shown, in seconds since 1970.
    pub shown_s: u64,
    /// The host made it for a client that comes back.
    pub is_resume: bool,
    /// The ticket with which the client may come back.
    pub resume_ticket: TicketId,
    /// Its text, for `welcome`.
    pub resume: String,
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whoever has the text can play in this player's name.
        f.debug_struct("Pass").field("ticket", &self.ticket).field("is_resume", &self.is_resume).finish_non_exhaustive()
    }
}

type Refused = (RefusalCode, String);

fn used() -> Refused {
    let reason = "this ticket is used up: it has opened a session. Ask for a new one where you got it, or the host with POST /api/rooms/{room}/join";
    (RefusalCode::UsedTicket, reason.into())
}

/// The session that was opened last, and with which tickets it may be opened again.
#[derive(Debug, Clone, Copy)]
struct Opened {
    by: TicketId,
    at_us: u64,
    resume: TicketId,
    /// Something came from it: its client has its welcome.
    is_confirmed: bool,
}

impl Opened {
    const fn new(pass: &Pass, now_us: u64) -> Self {
        Self { by: pass.ticket, at_us: now_us, resume: pass.resume_ticket, is_confirmed: false }
    }

    /// Whether the ticket that opened it may do so again.
    fn reopens(&self, ticket: TicketId, is_confirmed: bool, now_us: u64) -> bool {
        let is_young = now_us.saturating_sub(self.at_us) < REOPEN_WITHIN_US;
        self.by == ticket && !self.is_confirmed && !is_confirmed && is_young
    }
}

/// A player's place in a room.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// `iat` of the ticket with which the present session, or those that it continues, began.
    iat_s: u64,
    /// Tickets with that `iat` that were used.
    used: Vec<TicketId>,
    opened: Option<Opened>,
}

impl Seat {
    /// Whether a ticket may open a session here. `is_confirmed`: something came from the session that is open.
    pub(super) fn check(&self, pass: &Pass, is_confirmed: bool, now_us: u64) -> Result<(), Refused> {
        if let Some(opened) = &self.opened {
            if opened.reopens(pass.ticket, is_confirmed, now_us) || pass.is_resume && opened.resume == pass.ticket {
                return Ok(());
            }
            if pass.iat_s < self.iat_s {
                let reason = "a newer ticket of this player has opened a session; this one opens nothing any more";
                return Err((RefusalCode::SupersededTicket, reason.into()));
            }
        }
        if pass.is_resume || self.used.contains(&pass.ticket) && pass.iat_s == self.iat_s {
            return Err(used());
        }
        if pass.iat_s == self.iat_s && self.used.len() >= TICKETS_PER_SECOND_MAX {
            let reason = format!(
                "{TICKETS_PER_SECOND_MAX} tickets of this player were made in the same second and used; ask for a new one"
            );
            return Err((RefusalCode::TooManyAttempts, reason));
        }
        Ok(())
    }

    /// Takes note that a ticket, which was checked, opened a session.
    pub(super) fn take(&mut self, pass: &Pass, now_us: u64) {
        if !pass.is_resume {
            if pass.iat_s != self.iat_s {
                self.iat_s = pass.iat_s;
                self.used.clear();
            }
            if !self.used.contains(&pass.ticket) {
                self.used.push(pass.ticket);
            }
        }
        self.opened = Some(Opened::new(pass, now_us));
    }

    /// Takes note that its session is gone.
    pub(super) fn leave(&mut self, is_confirmed: bool) {
        if let Some(opened) = &mut self.opened {
            opened.is_confirmed |= is_confirmed;
        }
    }
}

/// One who watches.
#[derive(Debug)]
pub(super) struct Spectator {
    pub(super) session: SessionId,
    opened: Opened,
}

/// Those who watch a room.
#[derive(Debug, Default)]
pub(super) struct Gallery {
    watching: Vec<Spectator>,
    /// Those whose connection ended, who may come back; the last [`super::SPECTATORS_MAX`] of them.
    gone: VecDeque<Opened>,
    /// Tickets that were used, and until when they are remembered, in seconds since 1970.
    used: BTreeMap<TicketId, u64>,
}

/// Who a spectator's ticket takes the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    New,
    /// Its own, in a session that is still open.
    Of(SessionId),
}

impl Gallery {
    pub(super) fn watching(&self) -> &[Spectator] {
        &self.watching
    }

    /// Whether a ticket may open a session, and in place of which. `is_confirmed` says whether something came from a session.
    pub(super) fn check(
        &mut self,
        pass: &Pass,
        mut is_confirmed: impl FnMut(SessionId) -> bool,
        now_us: u64,
    ) -> Result<Place, Refused> {
        let continues = |opened: &Opened, is_confirmed: bool| {
            opened.reopens(pass.ticket, is_confirmed, now_us) || pass.is_resume && opened.resume == pass.ticket
        };
        let open = self.watching.iter().find(|one| continues(&one.opened, is_confirmed(one.session)));
        if let Some(open) = open {
            return Ok(Place::Of(open.session));
        }
        let returns = self.gone.iter().any(|opened| continues(opened, opened.is_confirmed));
        if !returns && (pass.is_resume || self.used.contains_key(&pass.ticket)) {
            return Err(used());
        }
        if self.watching.len() >= super::SPECTATORS_MAX {
            let reason = format!("the room has its {} spectators; try again when one has left", super::SPECTATORS_MAX);
            return Err((RefusalCode::TooManySessions, reason));
        }
        if !returns && self.used.len() >= SPECTATOR_TICKETS_MAX {
            self.used.retain(|_, forget_s| *forget_s > pass.shown_s);
            if self.used.len() >= SPECTATOR_TICKETS_MAX {
                let reason = format!(
                    "{SPECTATOR_TICKETS_MAX} spectators' tickets for this room were used and have not expired; try again later"
                );
                return Err((RefusalCode::TooManySessions, reason));
            }
        }
        Ok(Place::New)
    }

    /// Takes note that a ticket, which was checked, opened a session.
    pub(super) fn take(&mut self, pass: &Pass, session: SessionId, now_us: u64) {
        self.gone.retain(|opened| opened.by != pass.ticket && opened.resume != pass.ticket);
        if !pass.is_resume {
            self.used.insert(pass.ticket, pass.forget_s);
        }
        self.watching.push(Spectator { session, opened: Opened::new(pass, now_us) });
    }

    /// Takes note that a session is gone; nobody comes back to one that was replaced.
    pub(super) fn leave(&mut self, session: SessionId, is_confirmed: bool, may_return: bool) {
        let Some(at) = self.watching.iter().position(|one| one.session == session) else { return };
        let Spectator { mut opened, .. } = self.watching.swap_remove(at);
        if may_return {
            opened.is_confirmed |= is_confirmed;
            self.gone.push_back(opened);
            if self.gone.len() > super::SPECTATORS_MAX {
                self.gone.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> TicketId {
        TicketId::of("m", name)
    }

    /// The ticket `name`, after which `resume` is good.
    fn pass(name: &str, iat_s: u64, resume: &str) -> Pass {
        Pass {
            ticket: id(name),
            iat_s,
            forget_s: iat_s + 60,
            shown_s: iat_s,
            is_resume: name.starts_with('r'),
            resume_ticket: id(resume),
            resume: resume.into(),
        }
    }

    fn code(result: Result<(), Refused>) -> Option<RefusalCode> {
        result.err().map(|(code, reason)| {
            assert!(reason.len() > 20);
            code
        })
    }

    #[test]
    fn the_parts_of_an_id_are_not_mixed_up() {
        assert_ne!(TicketId::of("ab", "c"), TicketId::of("a", "bc"));
        assert_eq!(TicketId::of("ab", "c"), TicketId::of("ab", "c"));
    }

    #[test]
    fn a_ticket_opens_one_session_and_again_only_while_nothing_came_from_it() {
        let mut seat = Seat::default();
        let (first, again) = (pass("t1", 100, "r1"), pass("t1", 100, "r2"));
        assert!(seat.check(&first, false, 0).is_ok());
        seat.take(&first, 0);
        // The welcome was lost on its way.
        assert!(seat.check(&again, false, REOPEN_WITHIN_US - 1).is_ok());
        assert_eq!(code(seat.check(&again, false, REOPEN_WITHIN_US)), Some(RefusalCode::UsedTicket));
        assert_eq!(code(seat.check(&again, true, 1)), Some(RefusalCode::UsedTicket));
        seat.take(&again, 5);
        assert_eq!(
            code(seat.check(&pass("r1", 100, "r3"), false, 6)),
            Some(RefusalCode::UsedTicket),
            "the first welcome's"
        );
        // Its end does not make it good again, if its client was there.
        seat.leave(true);
        assert_eq!(code(seat.check(&again, false, 6)), Some(RefusalCode::UsedTicket));
        assert!(seat.check(&pass("r2", 100, "r3"), false, 6).is_ok());
    }

    #[test]
    fn newer_takes_over_and_older_does_not() {
        let mut seat = Seat::default();
        seat.take(&pass("t2", 100, "r1"), 0);
        assert_eq!(code(seat.check(&pass("t1", 99, "r"), true, 1)), Some(RefusalCode::SupersededTicket));
        assert!(seat.check(&pass("t3", 100, "r"), true, 1).is_ok(), "made in the same second, and not seen before");
        seat.take(&pass("t4", 101, "r4"), 1);
        for (late, expected) in [
            (pass("t2", 100, "r"), RefusalCode::SupersededTicket),
            (pass("r1", 100, "r"), RefusalCode::SupersededTicket),
            (pass("t4", 101, "r"), RefusalCode::UsedTicket),
            (pass("r0", 101, "r"), RefusalCode::UsedTicket),
        ] {
            assert_eq!(code(seat.check(&late, true, 2)), Some(expected), "{late:?}");
        }
        // Coming back does not make a chain newer than it is.
        seat.take(&pass("r4", 101, "r5"), 3);
        assert!(seat.check(&pass("t5", 102, "r"), true, 4).is_ok());
        assert_eq!(code(seat.check(&pass("r4", 101, "r"), true, 4)), Some(RefusalCode::UsedTicket));
    }

    #[test]
    fn what_is_remembered_of_a_player_is_bounded() {
        let mut seat = Seat::default();
        for number in 0..TICKETS_PER_SECOND_MAX {
            let ticket = pass(&format!("t{number}"), 7, "r");
            assert!(seat.check(&ticket, true, 0).is_ok());
            seat.take(&ticket, 0);
        }
        assert_eq!(code(seat.check(&pass("t", 7, "r"), true, 0)), Some(RefusalCode::TooManyAttempts));
        assert!(seat.check(&pass("t", 8, "r"), true, 0).is_ok());
        // Coming back takes no place.
        for number in 0..10_000 {
            let back = pass(&format!("r{number}"), 7, &format!("r{}", number + 1));
            seat.opened = Some(Opened { resume: back.ticket, ..seat.opened.unwrap() });
            assert!(seat.check(&back, true, 0).is_ok());
            seat.take(&back, 0);
        }
        assert_eq!(seat.used.len(), TICKETS_PER_SECOND_MAX);
    }

    #[test]
    fn spectators_tickets_are_used_once_and_forgotten_when_they_expire() {
        let mut gallery = Gallery::default();
        let session = SessionId::from_bits;
        let first = pass("t1", 100, "r1");
        assert_eq!(gallery.check(&first, |_| false, 0), Ok(Place::New));
        gallery.take(&first, session(1), 0);
        assert_eq!(gallery.check(&first, |_| false, 1), Ok(Place::Of(session(1))), "the welcome may be lost");
        assert_eq!(gallery.check(&first, |_| true, 1).unwrap_err().0, RefusalCode::UsedTicket);
        // Lost, and back; once.
        gallery.leave(session(1), true, true);
        assert_eq!(gallery.check(&first, |_| true, 1).unwrap_err().0, RefusalCode::UsedTicket);
        let back = pass("r1", 100, "r2");
        assert_eq!(gallery.check(&back, |_| true, 1), Ok(Place::New));
        gallery.take(&back, session(2), 1);
        assert_eq!(gallery.check(&back, |_| true, 1).unwrap_err().0, RefusalCode::UsedTicket);
        assert_eq!(gallery.check(&pass("r2", 100, "r3"), |_| true, 1), Ok(Place::Of(session(2))));
        gallery.leave(session(2), true, false);
        assert!(gallery.gone.is_empty() && gallery.watching.is_empty());

        for number in 1..SPECTATOR_TICKETS_MAX {
            let ticket = pass(&format!("u{number}"), 100, &format!("q{number}"));
            assert_eq!(gallery.check(&ticket, |_| true, 2), Ok(Place::New));
            gallery.take(&ticket, session(9), 2);
            gallery.leave(session(9), true, true);
        }
        assert_eq!(gallery.gone.len(), super::super::SPECTATORS_MAX);
        assert_eq!(gallery.check(&pass("v", 101, "q"), |_| true, 2).unwrap_err().0, RefusalCode::TooManySessions);
        // An hour later all of them have expired.
        assert_eq!(gallery.check(&pass("v", 3_700, "q"), |_| true, 2), Ok(Place::New));
        assert!(gallery.used.is_empty());
    }
}
