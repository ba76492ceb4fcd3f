//! `holeshot budget --measure`: times the operations of a real host in this process, while players play on it over real sockets, and makes a model of
//! a shard's frame from them.
//!
//! The host is a whole one, and its shard times itself ([`crate::shard::meter`]): every operation where it happens, with as many rooms in turn as there
//! are, so that memory is as cold as it is in service. What a timing costs is measured and taken off. In turns with that, the same host runs untimed: its
//! processor time, less all that was timed, is what falling asleep, waking up and looking cost, caches that went cold meanwhile included.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use tokio::time::sleep;

use super::counts::{self, PAGES_APART_MS, PerFrame};
use super::model::{Complexity, Model, Operation as Row, Range, Size, Unit, Work};
use super::queue::{self, Outcome, Service};
use crate::api::Api;
use crate::config::Settings;
use crate::load::{Load, Options as LoadOptions};
use crate::server::Server;
use crate::shard::meter::{ClockCost, Operation, Timed, clock_cost};

/// Rooms that may be measured at a time, of any number of players.
const ROOMS_MAX: usize = 450;
/// Longest measurement, in seconds.
pub const SECONDS_MAX: u64 = 120;
/// Part of the timings of an operation that its mean is of. In the rest are other programs that took the core meanwhile.
const COUNTED: f64 = 0.99;
/// A game's first frames, in milliseconds: clients find their lead meanwhile.
pub const SETTLE_MS: u64 = 1_000;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A rules module to load besides those that ship.
    pub modules: Vec<PathBuf>,
    /// What is played.
    pub load: LoadOptions,
    /// For how long, in seconds; half of it with timings.
    pub seconds: u64,
}

/// What operations take, and what was counted meanwhile.
#[derive(Debug, Clone)]
pub struct Measured {
    rooms: usize,
    times: Vec<(Operation, Timed)>,
    clock: ClockCost,
    /// Timed within a step, for each step: seals, sends and events once each, the journal as often as something leaves.
    inner_per_step: f64,
    /// Of these, those of the journal.
    journal_per_step: f64,
    sleep_us: Range,
    /// What a frame consisted of while nothing was timed.
    pub counts: PerFrame,
}

/// Predicted of one load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prediction {
    /// Rooms.
    pub rooms: usize,
    /// Processor time of the shard in a frame of 20 ms, in microseconds.
    pub cpu_us: f64,
    /// What the queue says of it.
    pub queue: Outcome,
}

/// Measured with few rooms and with many. Few find the caches cold each time that they are woken for; many share a waking.
#[derive(Debug, Clone)]
pub struct Calibration {
    /// With few rooms.
    pub few: Measured,
    /// With many.
    pub many: Measured,
}

impl Calibration {
    /// Measures with so many rooms, the fewer first.
    ///
    /// # Errors
    /// As for [`run`].
    pub async fn run(options: &Options, rooms: [usize; 2], mut progress: impl FnMut(&str)) -> anyhow::Result<Self> {
        let [few, many] = rooms;
        if few >= many {
            bail!("few rooms and then more of them are measured, not {few} and {many}");
        }
        let with = |rooms| Options { load: LoadOptions { rooms, ..options.load.clone() }, ..options.clone() };
        Ok(Self { few: run(&with(few), &mut progress).await?, many: run(&with(many), &mut progress).await? })
    }

    /// What is to be expected of so many rooms. The first room after each sleep finds the caches cold, and those that tick at the same look find them warm: a
    /// room's share of the former goes with 1 / rooms, and so does the place between the two measurements. Beyond them it is as the nearer one says.
    #[must_use]
    pub fn predict(&self, rooms: usize, seed: u64) -> Prediction {
        let [at, few, many] = [rooms, self.few.rooms, self.many.rooms].map(|rooms| 1.0 / rooms.max(1) as f64);
        let part = ((at - few) / (many - few)).clamp(0.0, 1.0);
        self.few.predict(rooms, seed).between(&self.many.predict(rooms, seed), part)
    }
}

impl Prediction {
    /// What is so far (0 to 1) on the way from this one to another of as many rooms.
    #[must_use]
    pub fn between(&self, other: &Self, part: f64) -> Self {
        let (from, to) = (&self.queue, &other.queue);
        let between = |from: f64, to: f64| from + (to - from) * part;
        Self {
            rooms: self.rooms,
            cpu_us: between(self.cpu_us, other.cpu_us),
            queue: Outcome {
                rooms: from.rooms,
                lateness_p50_ms: between(from.lateness_p50_ms, to.lateness_p50_ms),
                lateness_p99_ms: between(from.lateness_p99_ms, to.lateness_p99_ms),
                unread_ticks: between(from.unread_ticks, to.unread_ticks),
                sleeps: between(from.sleeps, to.sleeps),
                busy: between(from.busy, to.busy),
            },
        }
    }
}

/// Measures with one number of rooms.
///
/// # Errors
/// Options out of range, or a host or players that do not do what they should.
pub async fn run(options: &Options, mut progress: impl FnMut(&str)) -> anyhow::Result<Measured> {
    if options.load.rooms > ROOMS_MAX || !(1..=SECONDS_MAX).contains(&options.seconds) {
        bail!("1 to {ROOMS_MAX} rooms and 1 to {SECONDS_MAX} seconds can be measured");
    }
    let folder = tempfile::Builder::new().prefix("holeshot-budget-").tempdir().context("no folder for a host")?;
    let free = Some("127.0.0.1:0".parse()?);
    let settings = Settings {
        http_listen: free,
        udp_listen: free,
        mqtt_listen: free,
        data_dir: Some(folder.path().to_path_buf()),
        modules: options.modules.clone(),
        rooms_max: Some(u32::try_from(options.load.rooms)? + 8),
        linger_s: Some(0),
        shards: Some(1),
        ..Settings::default()
    };
    progress("starting a host");
    let server = Server::start(settings.resolve()?).await?;
    let measured = measure(&server, options, &mut progress).await;
    server.stop().await?;
    measured
}

async fn measure(server: &Server, options: &Options, progress: &mut impl FnMut(&str)) -> anyhow::Result<Measured> {
    let api = Api::new(&server.url())?;
    let meter = &server.shards().first().context("a host without a shard")?.counters.meter;
    let all = || Operation::ALL.map(|operation| (operation, meter.timed(operation)));
    progress("letting players in");
    meter.set(true);
    let load = Load::start(&api, &options.load).await?;
    load.begun().await?;
    meter.set(false);
    sleep(Duration::from_millis(SETTLE_MS)).await;
    progress("measuring");
    let before = all();
    let turns = options.seconds.max(1);
    let wait = Duration::from_millis((options.seconds * 1_000 / turns / 2).max(PAGES_APART_MS));
    let mut untimed = Vec::new();
    for _ in 0..turns {
        untimed.push(counts::between(&api, wait).await?);
        meter.set(true);
        sleep(wait).await;
        meter.set(false);
    }
    let after = all();
    let over = load.counts();
    meter.set(true);
    load.stop().await?;
    // A player who is gone is noticed when its connection ends.
    sleep(Duration::from_millis(PAGES_APART_MS)).await;
    meter.set(false);
    if over.games_over > 0 || over.sessions_lost > 0 {
        bail!(
            "the games ended while they were measured ({} players' were over, {} sessions lost): measure for fewer seconds",
            over.games_over,
            over.sessions_lost
        );
    }
    // Who comes and goes does so before and after the rest is timed, and so may be all that a game tells.
    let times = before.into_iter().zip(after).zip(all()).map(|(((operation, before), (_, after)), (_, end))| {
        let meanwhile = after.since(&before);
        (operation, if meanwhile.count == 0 { end } else { meanwhile })
    });
    Measured::new(options.load.rooms, times.collect(), clock_cost(), &untimed)
}

impl Measured {
    fn new(
        rooms: usize,
        times: Vec<(Operation, Timed)>,
        clock: ClockCost,
        untimed: &[PerFrame],
    ) -> anyhow::Result<Self> {
        let count = |operation: Operation| {
            times.iter().find(|(of, _)| *of == operation).map_or(0.0, |(_, timed)| timed.count as f64)
        };
        let steps = count(Operation::Step);
        if steps < 1.0 {
            bail!("no room was stepped while it was measured");
        }
        let of_steps = [Operation::Seal, Operation::Send, Operation::PublicEvent, Operation::InternalEvent];
        // The journal is timed for the tick and for each snapshot, and once when the step is over.
        let journal_per_step = 2.0 + count(Operation::Seal) / steps;
        let inner_per_step = of_steps.map(count).into_iter().sum::<f64>() / steps + journal_per_step;
        let counts = mean_of(untimed).context("nothing was counted")?;
        let mut measured =
            Self { rooms, times, clock, inner_per_step, journal_per_step, sleep_us: Range::exact(0.0), counts };
        let mut sleeps_us: Vec<f64> = Vec::new();
        for counts in untimed {
            let Some(cpu_us) = counts.cpu_us else {
                bail!("this system does not tell the processor time of a thread, so nothing can be predicted on it");
            };
            let timed_us = measured.model(counts).frame_ms().likely * 1e3;
            sleeps_us.push(((cpu_us - timed_us) / counts.sleeps.max(1.0)).max(0.0));
        }
        sleeps_us.sort_unstable_by(f64::total_cmp);
        // The one in the middle: what a neighbour takes of a shared machine comes in bursts.
        let likely = sleeps_us.get(sleeps_us.len() / 2).copied().unwrap_or_default();
        measured.sleep_us = Range {
            min: sleeps_us.first().copied().unwrap_or(likely),
            likely,
            max: sleeps_us.last().copied().unwrap_or(likely),
        };
        Ok(measured)
    }

    fn timed(&self, operation: Operation) -> Option<&Timed> {
        self.times.iter().find(|(of, _)| *of == operation).map(|(_, timed)| timed)
    }

    /// What an operation takes, in microseconds: 5 % took less than the least, 1 % more than the greatest, and likely is the mean without the latter.
    fn t_us(&self, operation: Operation) -> Range {
        let Some(timed) = self.timed(operation) else { return Range::exact(0.0) };
        // The rules' time and the journal's are put together elsewhere, and an input is one of many that are timed together.
        let clock_ns = match operation {
            Operation::Rules => 0.0,
            Operation::Input => self.clock.within_ns / self.inputs_per_datagram().max(1.0),
            Operation::Journal => self.clock.within_ns * self.journal_per_step,
            Operation::Step => self.clock.within_ns + self.inner_per_step * self.clock.whole_ns,
            _ => self.clock.within_ns,
        };
        let us = |ns: f64| (ns - clock_ns).max(0.0) / 1e3;
        let likely = us(timed.mean_ns(0.0, COUNTED));
        Range { min: us(timed.quantile_ns(0.05)).min(likely), likely, max: us(timed.quantile_ns(0.99)).max(likely) }
    }

    fn inputs_per_datagram(&self) -> f64 {
        let count = |operation| self.timed(operation).map_or(0.0, |timed| timed.count as f64);
        let datagrams = count(Operation::Open);
        if datagrams > 0.0 { count(Operation::Input) / datagrams } else { 0.0 }
    }

    /// A step without what is timed within it, in microseconds.
    fn step_besides_us(&self, counts: &PerFrame) -> Range {
        let step = self.t_us(Operation::Step);
        let steps = counts.rooms.max(f64::MIN_POSITIVE);
        let sent = counts.sent / steps;
        let inner = self.t_us(Operation::Rules).likely
            + self.t_us(Operation::Journal).likely
            + sent * (self.t_us(Operation::Seal).likely + self.t_us(Operation::Send).likely)
            + counts.public_events / steps * self.t_us(Operation::PublicEvent).likely
            + counts.internal_events / steps * self.t_us(Operation::InternalEvent).likely;
        Range::exact((step.likely - inner).max(0.0))
    }

    /// The model of a shard's frame of which so much was counted.
    #[must_use]
    pub fn model(&self, counts: &PerFrame) -> Model {
        let rooms = ("rooms".to_owned(), counts.rooms);
        let of_rooms = |name: &str, all: f64| {
            let each = if counts.rooms > 0.0 { all / counts.rooms } else { 0.0 };
            Size::Product(vec![rooms.clone(), (name.to_owned(), each)])
        };
        let only_rooms = Size::Product(vec![rooms.clone()]);
        let row = |name: &str, n: Size, t: Range, comment: &str| Row {
            name: name.to_owned(),
            work: Work { n, t, unit: Unit::Microseconds, p: Range::exact(1.0), complexity: Complexity::Linear },
            comment: Some(comment.to_owned()),
            alternative: None,
        };
        // As a probability in a frame of one room or player, what happens now and then.
        let seldom = |name: &str, n: Size, times: f64, t: Range, comment: &str| {
            let n_value = n.value();
            let p = if n_value > 0.0 { (times / n_value).min(1.0) } else { 0.0 };
            let mut row = row(name, n, t, comment);
            row.work.p = Range::exact(p);
            row
        };
        let t = |operation| self.t_us(operation);
        let players = Size::Product(vec![rooms.clone(), ("players".to_owned(), counts.players)]);
        let operations = vec![
            row(
                "sleep, wake up and look",
                Size::Number(counts.sleeps),
                self.sleep_us,
                "by difference: processor time less all that was timed, with caches gone cold",
            ),
            row(
                "receive a datagram",
                of_rooms("datagrams", counts.datagrams),
                t(Operation::Receive),
                "the system's part",
            ),
            row(
                "open a datagram",
                of_rooms("datagrams", counts.datagrams),
                t(Operation::Open),
                "session, key, replay window, form, rates, address",
            ),
            row("cache an input", of_rooms("inputs", counts.inputs), t(Operation::Input), "copies included"),
            row("run the rules", only_rooms.clone(), t(Operation::Rules), "the module, as the room measures it"),
            row(
                "step a room besides",
                only_rooms.clone(),
                self.step_besides_us(counts),
                "by difference: records, outputs, figures, the queue of due rooms",
            ),
            row(
                "write the journal",
                only_rooms.clone(),
                t(Operation::Journal),
                "the shard's part; a thread has the file",
            ),
            row(
                "encode and seal a snapshot",
                of_rooms("datagrams sent", counts.sent),
                t(Operation::Seal),
                "or a part of one, or an answer to a ping",
            ),
            row(
                "send a datagram",
                of_rooms("datagrams sent", counts.sent),
                t(Operation::Send),
                "the system's part, on this machine's own network",
            ),
            seldom(
                "tell a public event",
                only_rooms.clone(),
                counts.public_events,
                t(Operation::PublicEvent),
                "to all of the room",
            ),
            seldom(
                "publish an event",
                only_rooms,
                counts.internal_events,
                t(Operation::InternalEvent),
                "the shard's part: into the outbox; other threads take it to the broker",
            ),
            seldom(
                "let a player in",
                players.clone(),
                counts.opened,
                t(Operation::Attach),
                "the shard's part; P is 0 if nobody came while it was counted",
            ),
            seldom(
                "let a player go",
                players,
                counts.closed,
                t(Operation::Detach),
                "the shard's part; P is 0 if nobody went while it was counted",
            ),
        ];
        Model {
            name: "the frame of a shard, 20 ms".into(),
            frames_per_second: 1_000.0 / counts::FRAME_MS,
            cores: 1,
            comment: None,
            operations,
        }
    }

    /// What the queue serves, with so many players in each room.
    #[must_use]
    pub fn service(&self) -> Service {
        let counts = &self.counts;
        let t = |operation| self.t_us(operation).likely;
        let datagram_us = t(Operation::Receive) + t(Operation::Open) + self.inputs_per_datagram() * t(Operation::Input);
        let step = self.t_us(Operation::Step).likely;
        let measured = self.timed(Operation::Step).cloned().unwrap_or_default();
        Service {
            wakes: self.timed(Operation::Wake).cloned().unwrap_or_default(),
            tick_us: counts::FRAME_MS * 1e3,
            step_clock_us: (measured.mean_ns(0.0, COUNTED) / 1e3 - step).max(0.0),
            steps: measured,
            datagram_us,
            datagrams_per_room: counts.datagrams / counts.rooms.max(f64::MIN_POSITIVE),
            sleep_us: self.sleep_us.likely,
        }
    }

    /// What is to be expected of so many rooms: everything but the sleeps grows with them, and how many of these there are says the queue.
    #[must_use]
    pub fn predict(&self, rooms: usize, seed: u64) -> Prediction {
        let queue = queue::play(&self.service(), rooms, seed);
        let factor = rooms as f64 / self.counts.rooms.max(f64::MIN_POSITIVE);
        let counts = &self.counts;
        let counts = PerFrame {
            rooms: rooms as f64,
            datagrams: counts.datagrams * factor,
            inputs: counts.inputs * factor,
            snapshots: counts.snapshots * factor,
            sent: counts.sent * factor,
            public_events: counts.public_events * factor,
            internal_events: counts.internal_events * factor,
            opened: counts.opened * factor,
            closed: counts.closed * factor,
            sleeps: queue.sleeps,
            ..*counts
        };
        Prediction { rooms, cpu_us: self.model(&counts).frame_ms().likely * 1e3, queue }
    }

    /// The most rooms whose steps are in time, and what they cost.
    #[must_use]
    pub fn most_rooms(&self, lateness_ms: f64, seed: u64) -> Option<Prediction> {
        let most = queue::most_rooms(&self.service(), lateness_ms, seed)?;
        Some(self.predict(most.rooms, seed))
    }
}

fn mean_of(all: &[PerFrame]) -> Option<PerFrame> {
    let first = *all.first()?;
    let mean = |of: fn(&PerFrame) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    Some(PerFrame {
        rooms: mean(|c| c.rooms),
        players: mean(|c| c.players),
        datagrams: mean(|c| c.datagrams),
        inputs: mean(|c| c.inputs),
        snapshots: mean(|c| c.snapshots),
        sent: mean(|c| c.sent),
        public_events: mean(|c| c.public_events),
        internal_events: mean(|c| c.internal_events),
        opened: mean(|c| c.opened),
        closed: mean(|c| c.closed),
        sleeps: mean(|c| c.sleeps),
        cpu_us: first.cpu_us.map(|_| mean(|c| c.cpu_us.unwrap_or_default())),
        lateness_p99_ms: mean(|c| c.lateness_p99_ms),
    })
}
