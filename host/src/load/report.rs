//! What came of a load: figures, whether they can be believed, whether both sides agree, and all of it as text. Pure.

use std::fmt::Write as _;

use serde::Serialize;

use super::Counts;
use super::impairment::Impairment;
use super::ledger::Account;
use super::observed::{Quantiles, Times};
use crate::budget::counts::PerFrame;
use crate::budget::report::columns;

/// How late 99 of 100 datagrams with inputs may leave this generator, in microseconds: a quarter of a tick at 50 Hz. Beyond that delays are its own, not the host's.
pub const SEND_LATE_US_MAX: u64 = 5_000;
/// Inputs in a datagram, at most: so many at once are lost to a room if the system drops one.
const INPUTS_PER_DATAGRAM_MAX: u64 = holeshot_wire::payload::INPUTS_COUNT_MAX as u64;
/// The parts of all values at which a curve is drawn: up to one in a hundred thousand.
const CURVE: [f64; 22] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.98, 0.99, 0.995, 0.999, 0.9995,
    0.9999, 0.99995, 0.99999,
];

/// What a load came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The version of the program.
    pub version: &'static str,
    /// Whether it was built with optimisation.
    pub optimised: bool,
    /// Where the host is, in words.
    pub host: String,
    /// What was played.
    pub game: String,
    /// Rooms at a time.
    pub rooms: usize,
    /// Players of each.
    pub players_per_room: usize,
    /// Threads that had their datagrams.
    pub threads: usize,
    /// What players and network began with.
    pub seed: u64,
    /// Rooms opened in a second; none: as fast as the host opened them.
    pub ramp_rooms_per_s: Option<u32>,
    /// Whether the inputs are those of a journal.
    pub recorded: bool,
    /// The network between players and host.
    pub network: Impairment,
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// What the players counted meanwhile.
    pub players: Counts,
    /// What they counted from the first room to the last goodbye.
    pub whole: Counts,
    /// Between a player's snapshots, corrected for coordinated omission.
    pub snapshot_gap_us: Quantiles,
    /// From the moment at which an input was due to the first snapshot that can show it.
    pub input_delay_us: Quantiles,
    /// How much later than it should this generator sent datagrams with inputs.
    pub send_late_us: Quantiles,
    /// The same three in more detail.
    pub curves: [Curve; 3],
    /// The inputs of all games, by the counters of both sides.
    pub inputs: Account,
    /// Datagrams that a system dropped because nobody read them in time, from the first room to the last goodbye.
    pub dropped: Dropped,
    /// What happened in the host in a frame of 20 ms meanwhile; none if it does not tell.
    pub host_frame: Option<PerFrame>,
    /// Why the first room that could not be opened was not, or why the host's count is not known.
    pub trouble: Option<String>,
    /// How it was over the time.
    pub samples: Vec<Sample>,
}

/// Datagrams that found the buffer of a socket full: none where the system does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Dropped {
    /// At the host's sockets, by its own `/metrics`.
    pub host: Option<u64>,
    /// At the players' sockets.
    pub players: Option<u64>,
}

/// What is to be made of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Both sides account for every input, no input was lost that a copy could have saved, and the figures are to be believed.
    Held,
    /// Nothing is wrong by the counters of both sides, but generator or machine did not keep up, so that another run may say something else.
    NotShown,
    /// Something is wrong, whether the figures are to be believed or not.
    NotHeld,
}

/// A part of the time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Its end, in seconds from the beginning.
    pub at_s: f64,
    /// Players in a game at its end.
    pub players: u64,
    /// Snapshots that came in a second.
    pub snapshots_per_s: f64,
    /// Frames of which no snapshot came.
    pub snapshots_missed: u64,
    /// As in [`Report`].
    pub snapshot_gap_us: Quantiles,
    /// As in [`Report`].
    pub input_delay_us: Quantiles,
    /// As in [`Report`].
    pub send_late_us: Quantiles,
}

/// Values by the parts of all that do not exceed them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve(pub Vec<(f64, u64)>);

impl Curve {
    /// Of these times, in microseconds.
    #[must_use]
    pub fn of(times: &Times) -> Self {
        Self(CURVE.iter().map(|part| (*part, times.at(*part))).collect())
    }
}

impl Report {
    /// Why the figures are not to be believed: nothing if they are.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        let ms = |us: u64| us as f64 / 1_000.0;
        if self.send_late_us.p99 > SEND_LATE_US_MAX {
            doubts.push(format!(
                "the generator was too slow: one in a hundred of its datagrams left more than {:.1} ms late (at most {:.0} are believed). Give it more threads, fewer players or a machine of its own",
                ms(self.send_late_us.p99),
                ms(SEND_LATE_US_MAX)
            ));
        }
        if self.whole.no_place > 0 {
            doubts.push(format!(
                "{} datagrams found no place in the queue of the bad network: play with fewer players or less delay on each thread",
                self.whole.no_place
            ));
        }
        if self.whole.datagrams_unsent > 0 {
            doubts.push(format!(
                "this machine did not take {} datagrams for sending: play with fewer players",
                self.whole.datagrams_unsent
            ));
        }
        if let Some(dropped) = self.dropped.host.filter(|dropped| *dropped > 0) {
            doubts.push(format!(
                "the host's system dropped {dropped} datagrams before the host read them: it had too little of the machine. Play fewer rooms, from another machine, or see what `holeshot doctor` says of its receive buffer"
            ));
        }
        if let Some(dropped) = self.dropped.players.filter(|dropped| *dropped > 0) {
            doubts.push(format!(
                "this machine dropped {dropped} datagrams before the players read them: give the generator more threads, more sockets (--players-per-socket), or a machine of its own"
            ));
        }
        if self.players.snapshots == 0 {
            doubts.push("no snapshot came at all".to_owned());
        }
        doubts
    }

    /// What went wrong: nothing if both sides agree and everybody could play.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let Account { unexplained, surplus, games, too_long, never_received, out_of_track, .. } = self.inputs;
        if unexplained > 0 {
            faults.push(format!("{unexplained} inputs came and the host knows nothing of them"));
        }
        if never_received > 0 {
            let why = match self.dropped.host {
                Some(dropped) if dropped.saturating_mul(INPUTS_PER_DATAGRAM_MAX) >= never_received => {
                    format!("the host's system dropped {dropped} datagrams at a full buffer")
                }
                Some(dropped) => format!("its system dropped {dropped} datagrams only, so the host lost them"),
                None => "its system does not say whether it dropped them".to_owned(),
            };
            faults
                .push(format!("{never_received} inputs were sent to the host and no copy came to their rooms: {why}"));
        }
        if out_of_track > 0 {
            faults.push(format!(
                "{out_of_track} inputs came when the host had no place for their frame: it or the generator stood still for more than a second"
            ));
        }
        if too_long > 0 {
            faults.push("inputs are longer than the rules take them: play this game with --inputs JOURNAL".to_owned());
        }
        if surplus > 0 {
            faults.push(format!("the host counts {surplus} inputs more than came to it"));
        }
        if games == 0 {
            faults.push("the host's count of inputs is not known, so nothing was compared".to_owned());
        }
        if self.whole.sessions_lost > 0 {
            faults.push(format!("{} players lost their connection", self.whole.sessions_lost));
        }
        if self.whole.rooms_not_opened > 0 {
            faults.push(format!("{} times a room could not be opened anew", self.whole.rooms_not_opened));
        }
        if let Some(trouble) = self.trouble.as_ref().filter(|_| !faults.is_empty()) {
            faults.push(format!("the first trouble: {trouble}"));
        }
        faults
    }

    /// What is to be made of it, in a word. [`verdict`](Self::verdict) has the reasons.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match (self.faults().is_empty(), self.doubts().is_empty()) {
            (true, true) => Outcome::Held,
            (true, false) => Outcome::NotShown,
            (false, _) => Outcome::NotHeld,
        }
    }

    /// Rows of the account of inputs: what, how many, and what it means.
    #[must_use]
    pub fn account_rows(&self) -> [(&'static str, u64, &'static str); 12] {
        let Account { frames, not_sent, sent, lost, after_end, in_time, late, out_of_track, never_received, .. } =
            self.inputs;
        [
            ("frames that the host stepped", frames, "of all games, once for each player"),
            ("  no input was sent for them", not_sent, "before the first snapshot, and while a player left"),
            ("  an input was sent for them", sent, "counted by this side"),
            ("    every copy was lost on the way", lost, "by this side's dice: no redundancy saves it"),
            ("    came in time", in_time, "by the host's count"),
            ("    came too late", late, "by the host's count"),
            ("    came after the end of the game", after_end, "by the last snapshot"),
            ("    came far too late or early", out_of_track, "by the host's count: it keeps no input that far away"),
            (
                "    never came to their room",
                never_received,
                "by both counts: dropped by the system, or lost in the host",
            ),
            ("    unexplained", self.inputs.unexplained, "came, and the host knows nothing of it"),
            (
                "too late after a lost first copy",
                self.inputs.missed_after_loss,
                "by the snapshots: the lead was too small for the copies",
            ),
            (
                "too late although nothing was lost",
                self.inputs.missed_otherwise,
                "by the snapshots: the way took longer than the lead",
            ),
        ]
    }

    /// The network in words.
    #[must_use]
    pub fn network(&self) -> String {
        let Impairment { loss_ppm, delay_ms, jitter_ms, duplicate_ppm, reorder_ppm } = self.network;
        if self.network.is_none() {
            return "the network as it is".to_owned();
        }
        let percent = |ppm: u32| f64::from(ppm) / 10_000.0;
        let mut parts = Vec::new();
        if loss_ppm > 0 {
            parts.push(format!("{} % lost", percent(loss_ppm)));
        }
        if delay_ms > 0 || jitter_ms > 0 {
            parts.push(format!("{delay_ms} ms ± {jitter_ms} ms"));
        }
        if duplicate_ppm > 0 {
            parts.push(format!("{} % twice", percent(duplicate_ppm)));
        }
        if reorder_ppm > 0 {
            parts.push(format!("{} % overtaken", percent(reorder_ppm)));
        }
        format!("a network with {}, each way", parts.join(", "))
    }

    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.optimised {
            let _ = writeln!(
                text,
                "This program was built without optimisation: the figures are those of no host that serves anybody.\n"
            );
        }
        let Self { rooms, players_per_room, game, host, seed, threads, .. } = self;
        let inputs = if self.recorded { "inputs of a journal" } else { "programs that play" };
        let _ = writeln!(
            text,
            "{rooms} rooms of {players_per_room} players of {game} ({inputs}) for {:.0} s on {host}\nover {}; seed {seed}, {threads} {} for datagrams",
            self.seconds,
            self.network(),
            if *threads == 1 { "thread" } else { "threads" },
        );
        let Counts { snapshots, snapshots_missed, snapshots_late, games_started, games_over, .. } = self.players;
        let expected = snapshots.saturating_add(snapshots_missed);
        let percent = |part: u64| if expected == 0 { 0.0 } else { part as f64 * 100.0 / expected as f64 };
        let _ = writeln!(
            text,
            "\nsnapshots: {expected} expected, {snapshots} received, {snapshots_late} late ({:.2} %), {snapshots_missed} missed ({:.2} %)",
            percent(snapshots_late),
            percent(snapshots_missed)
        );
        let _ = writeln!(
            text,
            "players' games meanwhile: {games_started} begun, {games_over} over; datagrams lost by the network: {} to the host, {} from it\n",
            self.players.lost_up, self.players.lost_down
        );
        let mut table = vec![["in milliseconds", "p50", "p90", "p99", "p99.9", "max"].map(str::to_owned)];
        for (what, quantiles) in [
            ("between snapshots", &self.snapshot_gap_us),
            ("input to snapshot", &self.input_delay_us),
            ("own lateness", &self.send_late_us),
        ] {
            let ms = |us: u64| format!("{:.2}", us as f64 / 1_000.0);
            let Quantiles { p50, p90, p99, p999, max, .. } = *quantiles;
            table.push([what.to_owned(), ms(p50), ms(p90), ms(p99), ms(p999), ms(max)]);
        }
        columns(&mut text, &table);
        let _ = writeln!(
            text,
            "An input counts from when it was due; a gap also for the snapshots that should have come in it (coordinated omission)."
        );
        if let Some(PerFrame { rooms, cpu_us: Some(cpu_us), lateness_p99_ms, .. }) = self.host_frame
            && rooms > 0.0
        {
            let _ = writeln!(
                text,
                "The host: {:.1} us of its shards' processor time for each tick of a room, 99 of 100 steps at most {lateness_p99_ms:.2} ms late.",
                cpu_us / rooms
            );
        }
        let Account { games, not_compared, .. } = self.inputs;
        let _ = writeln!(
            text,
            "\ninputs of {games} player-games by the counters of both sides ({not_compared} player-games not compared)"
        );
        let rows = self.account_rows().map(|(what, count, why)| [what.to_owned(), count.to_string(), why.to_owned()]);
        account_columns(&mut text, &rows);
        let said = |dropped: Option<u64>| dropped.map_or("not known".to_owned(), |dropped| dropped.to_string());
        let _ = writeln!(
            text,
            "datagrams dropped by the system at full buffers: before the host read them {}, before the players read them {}\n",
            said(self.dropped.host),
            said(self.dropped.players)
        );
        text.push_str(&self.verdict());
        text
    }

    /// The last lines: what is to be made of it.
    #[must_use]
    pub fn verdict(&self) -> String {
        let mut text = String::new();
        let (doubts, faults) = (self.doubts(), self.faults());
        for doubt in &doubts {
            let _ = writeln!(text, "NOT TO BE BELIEVED: {doubt}.");
        }
        for fault in &faults {
            let _ = writeln!(text, "WRONG: {fault}.");
        }
        if self.inputs.games > 0 && self.inputs.agrees() {
            let _ = writeln!(
                text,
                "Both sides agree: no input was lost of which a copy came to the host before its frame was stepped."
            );
        }
        if doubts.is_empty() {
            let _ = writeln!(
                text,
                "The generator kept up: 99 of 100 datagrams left it at most {:.2} ms late.",
                self.send_late_us.p99 as f64 / 1_000.0
            );
        }
        text.push_str(match self.outcome() {
            Outcome::Held => "HELD, and to be believed.\n",
            Outcome::NotShown => "NOT SHOWN: nothing is wrong, but the run is not to be believed; do what is said above and run it again.\n",
            Outcome::NotHeld if doubts.is_empty() => "NOT HELD.\n",
            Outcome::NotHeld => {
                "NOT HELD; whether that is the host's fault is not known before the run is to be believed: do what is said above and run it again.\n"
            }
        });
        text
    }
}

/// Texts, numbers and texts below each other.
fn account_columns(text: &mut String, rows: &[[String; 3]]) {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let (names, numbers) = (width(0).unwrap_or(0), width(1).unwrap_or(0));
    for [what, count, why] in rows {
        let _ = writeln!(text, "{what:names$}  {count:>numbers$}  {why}");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run in which all is well.
    pub(crate) fn good() -> Report {
        let quantiles = Quantiles { count: 9, p50: 20_000, p90: 25_000, p99: 30_000, p999: 40_000, max: 50_123 };
        let late = Quantiles { count: 9, p50: 100, p90: 500, p99: 1_000, p999: 2_000, max: 3_000 };
        let players = Counts { snapshots: 990, snapshots_missed: 10, snapshots_late: 5, ..Counts::default() };
        let curve = Curve(CURVE.iter().map(|part| (*part, 20_000 + (part * 1e4) as u64)).collect());
        let sample = |at_s: f64| Sample {
            at_s,
            players: 2,
            snapshots_per_s: 100.0,
            snapshots_missed: 1,
            snapshot_gap_us: quantiles,
            input_delay_us: quantiles,
            send_late_us: late,
        };
        Report {
            version: "0.1.0",
            optimised: true,
            host: "a host".into(),
            game: "drag-race".into(),
            rooms: 1,
            players_per_room: 2,
            threads: 1,
            seed: 7,
            ramp_rooms_per_s: None,
            recorded: false,
            network: Impairment { loss_ppm: 50_000, delay_ms: 40, jitter_ms: 10, ..Impairment::default() },
            seconds: 10.0,
            players,
            whole: players,
            snapshot_gap_us: quantiles,
            input_delay_us: quantiles,
            send_late_us: late,
            curves: [curve.clone(), curve.clone(), curve],
            inputs: Account {
                games: 2,
                frames: 1_000,
                not_sent: 10,
                sent: 990,
                in_time: 985,
                late: 5,
                ..Account::default()
            },
            dropped: Dropped { host: Some(0), players: Some(0) },
            host_frame: None,
            trouble: None,
            samples: (1..=10).map(|at| sample(f64::from(at))).collect(),
        }
    }

    #[test]
    fn a_good_run_says_so_and_nothing_else() {
        let report = good();
        assert!(report.doubts().is_empty() && report.faults().is_empty());
        assert_eq!(report.outcome(), Outcome::Held);
        assert!(report.text().trim_end().ends_with("HELD, and to be believed."), "{}", report.text());
        let text = report.text();
        for words in
            ["1000 expected, 990 received", "5 % lost, 40 ms ± 10 ms, each way", "50.12", "Both sides agree", "seed 7"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("WRONG") && !text.contains("NOT TO BE"), "{text}");
    }

    #[test]
    fn a_slow_generator_is_not_believed() {
        let mut report = good();
        report.send_late_us.p99 = SEND_LATE_US_MAX + 1;
        report.whole.no_place = 3;
        report.whole.datagrams_unsent = 4;
        assert_eq!(report.doubts().len(), 3);
        assert!(report.text().contains("NOT TO BE BELIEVED: the generator was too slow"), "{}", report.text());
        assert_eq!(report.outcome(), Outcome::NotShown);
        assert!(report.text().contains("\nNOT SHOWN"), "{}", report.text());
        report.players.snapshots = 0;
        assert_eq!(report.doubts().len(), 4);
        report.dropped = Dropped { host: Some(5), players: Some(6) };
        assert!(report.doubts().concat().contains("dropped 5 datagrams before the host"), "{:?}", report.doubts());
        assert_eq!(report.doubts().len(), 6);
        report.dropped = Dropped { host: None, players: None };
        assert_eq!(report.doubts().len(), 4);
        assert!(report.text().contains("read them not known"), "{}", report.text());
    }

    #[test]
    fn what_the_system_dropped_is_told_from_what_the_host_lost() {
        let lost = Account { never_received: 40, ..good().inputs };
        let told = |host: Option<u64>| {
            let report = Report { inputs: lost, dropped: Dropped { host, players: Some(0) }, ..good() };
            assert_eq!(report.outcome(), Outcome::NotHeld);
            report.faults().concat()
        };
        assert!(told(Some(3)).contains("dropped 3 datagrams at a full buffer"), "{}", told(Some(3)));
        assert!(told(Some(2)).contains("so the host lost them"), "three hold 40 inputs, and two do not");
        assert!(told(None).contains("does not say"));
        let far = Report { inputs: Account { out_of_track: 2, ..good().inputs }, ..good() };
        assert!(far.faults().concat().contains("stood still") && far.outcome() == Outcome::NotHeld);
    }

    #[test]
    fn what_does_not_agree_is_told() {
        let mut report = good();
        report.inputs.unexplained = 1;
        report.inputs.surplus = 2;
        report.whole.sessions_lost = 3;
        report.whole.rooms_not_opened = 4;
        report.trouble = Some("the host says: full".into());
        let faults = report.faults();
        assert_eq!(faults.len(), 5, "{faults:?}");
        assert!(!report.text().contains("Both sides agree"));
        let unknown = Account { games: 0, not_compared: 9, ..Account::default() };
        assert!(Report { inputs: unknown, ..good() }.faults().concat().contains("nothing was compared"));
    }
}
