//! Actions on their way to the rules: the queue in order of arrival, and per player the ledger of ids that makes every
//! action count exactly once across reconnects.

use std::collections::VecDeque;
use std::fmt;

use holeshot_abi::{ACTION_BYTES_MAX, Action, TickRecord};

/// How many results of a player's actions are kept to answer repeats. Four times the default queue: a client that reconnects
/// repeats what was not answered, never more than it may have waiting.
pub const ACTION_RESULTS_KEPT_MAX: usize = 64;

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionOutcome {
    /// The rules were given it.
    Applied {
        /// In this frame.
        frame: u32,
    },
    /// The rules never see it.
    Refused(ActionRefusal),
}

/// Why an action was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionRefusal {
    /// Too many actions of the player wait for a tick.
    QueueFull,
    /// It is not JSON text.
    NotJson,
    /// It is longer than [`ACTION_BYTES_MAX`].
    TooLong,
    /// Its id is not above those before, and no result is kept under it.
    IdNotIncreasing,
    /// The match ended, or the player left, before its tick.
    Over,
}

impl ActionRefusal {
    /// The reason as a word for messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::NotJson => "not_json",
            Self::TooLong => "too_long",
            Self::IdNotIncreasing => "id_not_increasing",
            Self::Over => "over",
        }
    }
}

impl fmt::Display for ActionRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One id of the ledger.
#[derive(Debug, Clone, Copy)]
struct Entry {
    id: u64,
    /// None while it waits for its tick.
    outcome: Option<ActionOutcome>,
    /// The outcome is to be told to the player.
    to_tell: bool,
}

/// What one player sent, by id.
#[derive(Debug, Default)]
struct Ledger {
    /// In rising order of ids.
    entries: VecDeque<Entry>,
    last_id: Option<u64>,
    queued: usize,
    to_tell: usize,
    /// An id below the last that is not kept, to be answered with a refusal. One is enough: who sends such an id again gets the
    /// answer again.
    misnumbered: Option<u64>,
}

impl Ledger {
    fn settle(&mut self, id: u64, outcome: ActionOutcome) {
        if let Ok(at) = self.entries.binary_search_by_key(&id, |entry| entry.id)
            && let Some(entry) = self.entries.get_mut(at)
        {
            if entry.outcome.is_none() {
                self.queued -= 1;
            }
            entry.outcome = Some(outcome);
            if !entry.to_tell {
                entry.to_tell = true;
                self.to_tell += 1;
            }
        }
    }
}

#[derive(Debug)]
struct Queued {
    player: u16,
    id: u64,
    json: Box<str>,
}

/// The answer of [`Actions::offer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// It waits for a tick.
    Queued,
    /// Refused, and the player will be told.
    Refused,
    /// A repeat: the player will be told its result again, or for the first time when it is known.
    Repeat,
    /// Nothing was noted.
    TooMany,
}

/// The actions of all players of a room.
#[derive(Debug)]
pub(crate) struct Actions {
    queue: VecDeque<Queued>,
    ledgers: Vec<Ledger>,
    queued_max: usize,
    /// A result may be to be told. In most ticks nothing is, and no ledger is looked at.
    has_news: bool,
}

impl Actions {
    pub(crate) fn new(players: usize, queued_max: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            ledgers: (0..players).map(|_| Ledger::default()).collect(),
            queued_max: queued_max.min(ACTION_RESULTS_KEPT_MAX),
            has_news: false,
        }
    }

    pub(crate) fn offer(&mut self, player: u16, id: u64, json: &str) -> Offer {
        let Some(ledger) = self.ledgers.get_mut(usize::from(player)) else { return Offer::TooMany };
        self.has_news = true;
        if ledger.last_id.is_some_and(|last| id <= last) {
            match ledger.entries.binary_search_by_key(&id, |entry| entry.id) {
                Ok(at) => {
                    if let Some(entry) = ledger.entries.get_mut(at)
                        && entry.outcome.is_some()
                        && !entry.to_tell
                    {
                        entry.to_tell = true;
                        ledger.to_tell += 1;
                    }
                    return Offer::Repeat;
                }
                Err(_) => {
                    ledger.misnumbered = Some(id);
                    return Offer::Refused;
                }
            }
        }
        while ledger.entries.len() >= ACTION_RESULTS_KEPT_MAX {
            // Only what was answered may be forgotten.
            match ledger.entries.front() {
                Some(entry) if entry.outcome.is_some() && !entry.to_tell => ledger.entries.pop_front(),
                _ => return Offer::TooMany,
            };
        }
        ledger.last_id = Some(id);
        ledger.entries.push_back(Entry { id, outcome: None, to_tell: false });
        ledger.queued += 1;
        let refusal = if json.len() > ACTION_BYTES_MAX {
            ActionRefusal::TooLong
        } else if crate::json::check(json).is_err() {
            ActionRefusal::NotJson
        } else if ledger.queued > self.queued_max {
            ActionRefusal::QueueFull
        } else {
            self.queue.push_back(Queued { player, id, json: json.into() });
            return Offer::Queued;
        };
        ledger.settle(id, ActionOutcome::Refused(refusal));
        Offer::Refused
    }

    /// Writes waiting actions into a record, in order of arrival, until it is full. They go on waiting until they are
    /// [settled](Self::applied). Gives their number.
    pub(crate) fn write(&self, record: &mut TickRecord) -> usize {
        self.queue
            .iter()
            .take_while(|first| record.push_action(Action { player: first.player, json: &first.json }))
            .count()
    }

    /// The rules were given the first `count` actions, in `frame`. Calls `applied` with the player of each.
    pub(crate) fn applied(&mut self, count: usize, frame: u32, mut applied: impl FnMut(u16)) {
        for Queued { player, id, .. } in self.queue.drain(..count.min(self.queue.len())) {
            applied(player);
            self.has_news = true;
            if let Some(ledger) = self.ledgers.get_mut(usize::from(player)) {
                ledger.settle(id, ActionOutcome::Applied { frame });
            }
        }
    }

    /// Refuses what waits: of one player, or of all. Calls `refused` with the player of each.
    pub(crate) fn refuse_waiting(&mut self, of: Option<u16>, mut refused: impl FnMut(u16)) {
        let Self { queue, ledgers, has_news, .. } = self;
        queue.retain(|action| {
            if of.is_some_and(|player| player != action.player) {
                return true;
            }
            refused(action.player);
            *has_news = true;
            if let Some(ledger) = ledgers.get_mut(usize::from(action.player)) {
                ledger.settle(action.id, ActionOutcome::Refused(ActionRefusal::Over));
            }
            false
        });
    }

    /// Hands out every result that is to be told, per player in order of ids.
    pub(crate) fn tell(&mut self, mut tell: impl FnMut(u16, u64, ActionOutcome)) {
        if !std::mem::take(&mut self.has_news) {
            return;
        }
        for (player, ledger) in (0u16..).zip(&mut self.ledgers) {
            if let Some(id) = ledger.misnumbered.take() {
                tell(player, id, ActionOutcome::Refused(ActionRefusal::IdNotIncreasing));
            }
            if ledger.to_tell == 0 {
                continue;
            }
            ledger.to_tell = 0;
            for entry in &mut ledger.entries {
                if entry.to_tell
                    && let Some(outcome) = entry.outcome
                {
                    entry.to_tell = false;
                    tell(player, entry.id, outcome);
                }
            }
        }
    }

    pub(crate) fn last_id(&self, player: usize) -> Option<u64> {
        self.ledgers.get(player).and_then(|ledger| ledger.last_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holeshot_abi::{ACTIONS_PER_TICK_MAX, TickReader};

    fn told(actions: &mut Actions) -> Vec<(u16, u64, ActionOutcome)> {
        let mut told = Vec::new();
        actions.tell(|player, id, outcome| told.push((player, id, outcome)));
        told
    }

    fn tick(actions: &mut Actions, frame: u32) -> Vec<(u16, String)> {
        let mut record = TickRecord::default();
        record.begin(frame, 2, 0);
        let count = actions.write(&mut record);
        actions.applied(count, frame, |_| ());
        let reader = TickReader::read(record.bytes()).unwrap();
        reader.actions().map(|action| (action.player, action.json.to_owned())).collect()
    }

    const fn applied(frame: u32) -> ActionOutcome {
        ActionOutcome::Applied { frame }
    }

    const fn refused(why: ActionRefusal) -> ActionOutcome {
        ActionOutcome::Refused(why)
    }

    #[test]
    fn actions_come_in_order_and_once() {
        let mut actions = Actions::new(2, 16);
        assert_eq!(actions.offer(1, 10, "1"), Offer::Queued);
        assert_eq!(actions.offer(0, 5, "[2]"), Offer::Queued);
        assert_eq!(actions.offer(1, 11, "3"), Offer::Queued);
        assert_eq!(actions.offer(1, 10, "1"), Offer::Repeat);
        assert_eq!(told(&mut actions), []);
        assert_eq!(tick(&mut actions, 7), [(1, "1".into()), (0, "[2]".into()), (1, "3".into())]);
        assert_eq!(told(&mut actions), [(0, 5, applied(7)), (1, 10, applied(7)), (1, 11, applied(7))]);
        assert_eq!(actions.offer(1, 10, "1"), Offer::Repeat);
        assert_eq!(actions.offer(1, 10, "1"), Offer::Repeat);
        assert_eq!(tick(&mut actions, 8), []);
        assert_eq!(told(&mut actions), [(1, 10, applied(7))]);
        assert_eq!(actions.last_id(1), Some(11));
    }

    #[test]
    fn actions_of_a_frame_that_is_skipped_wait_for_the_next() {
        let mut actions = Actions::new(2, 16);
        assert_eq!(actions.offer(0, 1, "1"), Offer::Queued);
        let mut record = TickRecord::default();
        record.begin(4, 2, 0);
        assert_eq!(actions.write(&mut record), 1);
        assert_eq!(actions.offer(1, 1, "2"), Offer::Queued);
        assert_eq!(told(&mut actions), []);
        assert_eq!(tick(&mut actions, 5), [(0, "1".into()), (1, "2".into())]);
        assert_eq!(told(&mut actions), [(0, 1, applied(5)), (1, 1, applied(5))]);
    }

    #[test]
    fn refusals_are_told_and_told_again() {
        let mut actions = Actions::new(1, 2);
        assert_eq!(actions.offer(0, 1, "{"), Offer::Refused);
        assert_eq!(actions.offer(0, 2, &"1".repeat(ACTION_BYTES_MAX + 1)), Offer::Refused);
        assert_eq!(actions.offer(0, 3, ""), Offer::Refused);
        for (id, offer) in [(4, Offer::Queued), (6, Offer::Queued), (7, Offer::Refused), (5, Offer::Refused)] {
            assert_eq!(actions.offer(0, id, "null"), offer, "{id}");
        }
        use ActionRefusal::{IdNotIncreasing, NotJson, Over, QueueFull, TooLong};
        let first = [
            (0, 5, refused(IdNotIncreasing)),
            (0, 1, refused(NotJson)),
            (0, 2, refused(TooLong)),
            (0, 3, refused(NotJson)),
            (0, 7, refused(QueueFull)),
        ];
        assert_eq!(told(&mut actions), first);
        assert_eq!(actions.offer(0, 7, "null"), Offer::Repeat);
        assert_eq!(told(&mut actions), [(0, 7, refused(QueueFull))]);
        actions.refuse_waiting(None, |_| ());
        assert_eq!(told(&mut actions), [(0, 4, refused(Over)), (0, 6, refused(Over))]);
    }

    #[test]
    fn a_record_takes_as_many_as_it_holds_and_the_rest_waits() {
        let mut actions = Actions::new(8, ACTION_RESULTS_KEPT_MAX);
        for player in 0..8 {
            for id in 0..ACTION_RESULTS_KEPT_MAX as u64 {
                assert_eq!(actions.offer(player, id, "0"), Offer::Queued);
            }
            assert_eq!(actions.offer(player, 999, "0"), Offer::TooMany);
        }
        let mut record = TickRecord::default();
        record.begin(0, 8, 0);
        let count = actions.write(&mut record);
        actions.applied(count, 0, |_| ());
        assert_eq!(TickReader::read(record.bytes()).unwrap().actions().count(), ACTIONS_PER_TICK_MAX);
        record.begin(1, 8, 0);
        let count = actions.write(&mut record);
        actions.applied(count, 1, |_| ());
        assert_eq!(
            TickReader::read(record.bytes()).unwrap().actions().count(),
            8 * ACTION_RESULTS_KEPT_MAX - ACTIONS_PER_TICK_MAX
        );
        assert_eq!(told(&mut actions).len(), 8 * ACTION_RESULTS_KEPT_MAX);
        // What was answered makes way for new ones; an id that was forgotten is refused, not applied again.
        assert_eq!(actions.offer(0, 1000, "0"), Offer::Queued);
        assert_eq!(actions.offer(0, 0, "0"), Offer::Refused);
        assert_eq!(actions.offer(0, 1, "0"), Offer::Repeat);
    }
}
