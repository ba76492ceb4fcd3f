//! For which frame an input is, and how far ahead of the host it is sent. Pure: the time is an argument, nothing is sent.
//! Sockets, keys and the inputs themselves are elsewhere in this crate.
//!
//! # How it works
//!
//! The host steps frame `f` at one moment; its snapshot arrives here some way later. `arrival - f * tick` is therefore a
//! constant plus the jitter of the path, and the smallest of the last second is the best guess of the constant. With
//! it, any moment has a frame: the one whose snapshot would just arrive. That clock runs behind the host's by the way
//! down. An input has to be ahead of it by the way down, the way up, and some room for jitter: the **lead**, in frames.
//!
//! Nobody can measure the two ways apart, but the host says how early the inputs come ([`Advice`]). The lead starts
//! from the round trip; if an input came late or nearly so, it is raised at once by as much as was missing; if all came
//! early for a while, it is lowered by one frame, and again after another while. The advice looks back over up to 100
//! inputs, so after a change it is not believed before so many are sent, except that inputs are missing right now.

use std::collections::VecDeque;

/// The largest lead, in milliseconds: above it a player acts on a game that is half a second old, and hosts keep no more
/// inputs than that ahead.
pub const LEAD_MS_MAX: u32 = 500;

/// The margin that every input should have on arrival, in milliseconds. Below it the lead is raised. A host takes datagrams
/// off its socket every millisecond or two; the rest is for jitter that has not shown itself yet.
pub const MARGIN_MS_MIN: i32 = 5;

/// How many inputs must be sent after a change of the lead before the advice speaks of the new lead only. Hosts look back
/// at up to 100.
const SETTLE_FRAMES: u64 = 110;

/// How long to wait between two raises that rest on missing inputs, beyond a round trip, in frames.
const RAISE_AGAIN_FRAMES: u64 = 6;

/// Over how many datagrams the loss is reckoned, at most: half of a loss is forgotten after five seconds at 50 Hz.
const LOSS_DATAGRAMS_MAX: u64 = 512;

/// Before so many datagrams should have come, nothing is said of the loss.
const LOSS_DATAGRAMS_MIN: u64 = 64;

/// The losses, in parts of a million, from which on one datagram in a row must be reckoned with, two, three, and four: the first to fourth root of one in 30,000.
/// More ticks than that would cost a player more than a late input does.
const LOSS_PPM: [u64; 4] = [33, 5_774, 32_183, 75_984];

/// The most that loss adds to the lead, in milliseconds: four ticks at 50 Hz.
const LOSS_LEAD_MS_MAX: u64 = 80;

/// What the lead is before the round trip is known, in frames.
const LEAD_FRAMES_FIRST: u32 = 3;

/// What a snapshot says about the inputs of this player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// The smallest margin of the recent inputs, in milliseconds; `None` if the host had none.
    pub margin_ms: Option<i16>,
    /// The highest frame for which the host has an input.
    pub newest_input_frame: Option<u32>,
}

/// The frame clock and the lead of one session.
///
/// Contract: `now_us` never runs back. Call [`Pacer::on_snapshot`] for each whole snapshot when it arrived,
/// [`Pacer::on_rtt`] when a round trip was measured, [`Pacer::on_datagram`] for each datagram that opened, and [`Pacer::take_frame`] when there is an input to send; each
/// frame is given out once, rising.
#[derive(Debug, Clone)]
pub struct Pacer {
    tick_hz: u64,
    /// `arrival - frame * tick` of snapshots of the last second, in microseconds, each with its place among all snapshots: only those below every later one, rising.
    /// The first is the smallest of all; the others take its place as it grows old.
    offsets_us: VecDeque<(u64, i64)>,
    /// Whole snapshots so far.
    snapshots: u64,
    rtt_us: Option<u64>,
    lead_frames: u32,
    /// Whether the host's advice, not the round trip, decides by now.
    advised: bool,
    /// The advice is not believed before this moment.
    settled_at_us: u64,
    /// Missing inputs raise the lead again only after this moment.
    raise_again_at_us: u64,
    /// The first frame given out since the lead was last raised: only what is missing from there on speaks of the new lead.
    raised_from_frame: u32,
    newest_snapshot_frame: Option<u32>,
    last_frame: Option<u32>,
    loss: Loss,
}

/// How many of the datagrams of the way down do not come. One that is overtaken by less than 64 others is not lost.
#[derive(Debug, Clone, Copy, Default)]
struct Loss {
    newest: Option<u64>,
    /// Bit `n` is set if the datagram came that is `n` before the newest.
    came: u64,
    /// Datagrams that are further back than that, and how many of them never came.
    settled: u64,
    lost: u64,
    /// How many in a row must be reckoned with.
    in_a_row: u64,
}

impl Loss {
    fn note(&mut self, sequence: u64) {
        let newest = *self.newest.get_or_insert_with(|| {
            // Of those before the first nobody says that they were sent.
            self.came = u64::MAX;
            sequence
        });
        let Some(ahead) = sequence.checked_sub(newest).filter(|ahead| *ahead > 0) else {
            self.came |= u32::try_from(newest - sequence).ok().and_then(|back| 1u64.checked_shl(back)).unwrap_or(0);
            return;
        };
        self.newest = Some(sequence);
        // A gap of more than is reckoned over says no more than one of that length.
        let ahead = ahead.min(LOSS_DATAGRAMS_MAX);
        let leaving = ahead.min(u64::from(u64::BITS)) as u32;
        let came = self.came.checked_shr(u64::BITS - leaving).unwrap_or(0).count_ones();
        self.came = self.came.checked_shl(leaving).unwrap_or(0) | 1;
        self.settled += ahead;
        self.lost += ahead - u64::from(came);
        if self.settled >= LOSS_DATAGRAMS_MIN {
            let lost_ppm = self.lost * 1_000_000 / self.settled;
            self.in_a_row = LOSS_PPM.iter().filter(|least| lost_ppm > **least).count() as u64;
        }
        if self.settled >= LOSS_DATAGRAMS_MAX {
            // What came long ago counts ever less.
            (self.settled, self.lost) = (self.settled / 2, self.lost / 2);
        }
    }
}

impl Pacer {
    /// A pacer for a room with this tick rate (1 to 128 Hz; others are brought into that range).
    pub fn new(tick_hz: u16) -> Self {
        let tick_hz = u64::from(tick_hz.clamp(1, 128));
        Self {
            tick_hz,
            offsets_us: VecDeque::new(),
            snapshots: 0,
            rtt_us: None,
            lead_frames: LEAD_FRAMES_FIRST,
            advised: false,
            settled_at_us: 0,
            raise_again_at_us: 0,
            raised_from_frame: 0,
            newest_snapshot_frame: None,
            last_frame: None,
            loss: Loss::default(),
        }
    }

    /// Forgets the clock and the frames given out, and keeps the lead: for a new session in the same room.
    pub fn restart(&mut self) {
        self.offsets_us.clear();
        self.newest_snapshot_frame = None;
        self.last_frame = None;
        self.raised_from_frame = 0;
        // The numbers begin anew, the path is the same.
        self.loss = Loss { in_a_row: self.loss.in_a_row, ..Loss::default() };
    }

    /// Takes note of a measured round trip. It sets the lead until the host's advice does.
    pub fn on_rtt(&mut self, rtt_us: u64) {
        self.rtt_us = Some(rtt_us);
        if !self.advised {
            // The ways down and up, the tick that is under way, and one for jitter.
            let frames = rtt_us.saturating_mul(self.tick_hz).div_ceil(1_000_000) + 2;
            self.lead_frames = self.within(frames);
        }
    }

    /// Takes note of a datagram of the host that opened, by its sequence number and whatever is in it: those that are missing tell the loss.
    pub fn on_datagram(&mut self, sequence: u64) {
        self.loss.note(sequence);
    }

    /// Takes note of a whole snapshot of `frame` that arrived at `now_us`.
    pub fn on_snapshot(&mut self, frame: u32, advice: Advice, now_us: u64) {
        if self.newest_snapshot_frame.is_some_and(|newest| frame <= newest) {
            return;
        }
        self.newest_snapshot_frame = Some(frame);
        let offset_us = now_us as i64 - self.frame_us(frame) as i64;
        while self.offsets_us.pop_back_if(|(_, before_us)| *before_us >= offset_us).is_some() {}
        self.offsets_us.push_back((self.snapshots, offset_us));
        self.snapshots += 1;
        // One sample per snapshot of the last second.
        let oldest = self.snapshots.saturating_sub(self.tick_hz);
        while self.offsets_us.pop_front_if(|(number, _)| *number < oldest).is_some() {}
        self.follow(frame, advice, now_us);
    }

    /// The smallest offset of the last second.
    fn offset_us(&self) -> Option<i64> {
        self.offsets_us.front().map(|(_, offset_us)| *offset_us)
    }

    /// The frame whose snapshot would just arrive at `now_us`; `None` before the first snapshot.
    pub fn frame_now(&self, now_us: u64) -> Option<u32> {
        let offset_us = self.offset_us()?;
        let since_us = u64::try_from(now_us as i64 - offset_us).unwrap_or(0);
        let frame = since_us.saturating_mul(self.tick_hz) / 1_000_000;
        u32::try_from(frame).ok().filter(|frame| *frame < u32::MAX)
    }

    /// The frame that an input taken at `now_us` is for; `None` before the first snapshot, and if an input for that frame
    /// was already given out (the caller's input came early, or the lead was lowered). Frames that are skipped because
    /// the lead was raised, or because the caller was late, should get the same input.
    pub fn take_frame(&mut self, now_us: u64) -> Option<u32> {
        let frame = self.frame_now(now_us)?.checked_add(self.lead_frames)?;
        if frame == u32::MAX || self.last_frame.is_some_and(|last| frame <= last) {
            return None;
        }
        self.last_frame = Some(frame);
        Some(frame)
    }

    /// When the snapshot of this frame would just arrive, on the clock of [`Pacer::frame_now`]: for who reads controls in every frame, whatever came.
    /// `None` before the first snapshot.
    pub fn frame_begins_us(&self, frame: u32) -> Option<u64> {
        let offset_us = self.offset_us()?;
        // A frame whose share of a second is no whole number begins with the next microsecond.
        let since_us = (u64::from(frame) * 1_000_000).div_ceil(self.tick_hz);
        Some(u64::try_from(offset_us.saturating_add(since_us as i64)).unwrap_or(0))
    }

    /// How many frames ahead of the newest snapshot's clock inputs are sent.
    pub fn lead_frames(&self) -> u32 {
        self.lead_frames
    }

    fn follow(&mut self, frame: u32, advice: Advice, now_us: u64) {
        let (Some(margin_ms), Some(newest)) = (advice.margin_ms, advice.newest_input_frame) else {
            return;
        };
        let settled = now_us >= self.settled_at_us;
        let tick_us = 1_000_000 / self.tick_hz as i64;
        let for_copies_us = self.loss.in_a_row.min(LOSS_LEAD_MS_MAX * self.tick_hz / 1_000) as i64 * tick_us;
        let missing_us = i64::from(MARGIN_MS_MIN - i32::from(margin_ms)) * 1_000 + for_copies_us;
        // The frame was stepped without an input that this lead was to bring in time.
        let behind = frame.saturating_sub(newest);
        let missing_now = behind > 0
            && frame >= self.raised_from_frame
            && self.last_frame.is_some_and(|last| last >= frame)
            && now_us >= self.raise_again_at_us;
        if settled && missing_us > 0 {
            self.raise((missing_us as u64).div_ceil(tick_us as u64), now_us);
        } else if missing_now {
            self.raise(u64::from(behind), now_us);
        } else if settled {
            // One tick must stay over after lowering, or the next jitter raises it again.
            let spare_us = -missing_us - tick_us * 3 / 2;
            if spare_us > 0 {
                let spare = spare_us / tick_us;
                // Far too early is not jitter: the host may drop inputs that far ahead. So half of it at once.
                let down = if spare > 8 { spare / 2 } else { 1 };
                self.change(u64::from(self.lead_frames).saturating_sub(down as u64), now_us);
            }
        }
    }

    fn raise(&mut self, frames: u64, now_us: u64) {
        self.change(u64::from(self.lead_frames) + frames, now_us);
        self.raised_from_frame = self.last_frame.map_or(0, |last| last.saturating_add(1));
    }

    fn change(&mut self, lead_frames: u64, now_us: u64) {
        self.advised = true;
        self.lead_frames = self.within(lead_frames);
        let rtt_us = self.rtt_us.unwrap_or(0);
        let frames_us = |frames: u64| frames * 1_000_000 / self.tick_hz;
        self.settled_at_us = now_us + rtt_us + frames_us(SETTLE_FRAMES);
        self.raise_again_at_us = now_us + rtt_us + frames_us(RAISE_AGAIN_FRAMES);
    }

    fn within(&self, frames: u64) -> u32 {
        let max = (u64::from(LEAD_MS_MAX) * self.tick_hz / 1_000).max(2);
        frames.clamp(1, max) as u32
    }

    fn frame_us(&self, frame: u32) -> u64 {
        u64::from(frame) * 1_000_000 / self.tick_hz
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host, two ways with jitter and loss, and a player that sends an input on every snapshot. Time is in microseconds.
    struct World {
        seed: u64,
        pacer: Pacer,
        tick_hz: u64,
        down_us: u64,
        up_us: u64,
        jitter_us: u64,
        loss_percent: u64,
        /// The client's clock runs so much faster than the host's, in parts per million.
        drift_ppm: i64,
        frame: u32,
        /// The host's moment of frame 0, in the client's time.
        start_us: u64,
        /// Whether the pacer hears the numbers of datagrams.
        tells_loss: bool,
        /// Snapshots on their way: arrival, frame, advice.
        down: Vec<(u64, u32, Advice)>,
        /// Inputs on their way: arrival, newest frame.
        up: Vec<(u64, u32)>,
        /// Arrival of the first input for a frame.
        arrived: std::collections::BTreeMap<u32, u64>,
        margins_ms: VecDeque<i64>,
        newest: Option<u32>,
        late: u32,
        stepped: u32,
    }

    impl World {
        fn new(seed: u64, tick_hz: u16, one_way_ms: u64, jitter_ms: u64) -> Self {
            println!("seed {seed}");
            let mut pacer = Pacer::new(tick_hz);
            pacer.on_rtt(one_way_ms * 2_000);
            Self {
                seed,
                pacer,
                tick_hz: u64::from(tick_hz),
                down_us: one_way_ms * 1_000,
                up_us: one_way_ms * 1_000,
                jitter_us: jitter_ms * 1_000,
                loss_percent: 0,
                drift_ppm: 0,
                frame: 0,
                start_us: 3_000_000,
                tells_loss: true,
                down: Vec::new(),
                up: Vec::new(),
                arrived: Default::default(),
                margins_ms: VecDeque::new(),
                newest: None,
                late: 0,
                stepped: 0,
            }
        }

        /// splitmix64
        fn random(&mut self, below: u64) -> u64 {
            self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)) % below.max(1)
        }

        fn due_us(&self, frame: u32) -> u64 {
            let tick_us = (1_000_000 + self.drift_ppm) as u64;
            self.start_us + u64::from(frame) * tick_us / self.tick_hz
        }

        fn way(&mut self, base_us: u64) -> Option<u64> {
            let jitter_us = self.jitter_us;
            let lost = self.random(100) < self.loss_percent;
            let way_us = base_us + self.random(jitter_us);
            (!lost).then_some(way_us)
        }

        /// Runs `frames` ticks; gives the share of frames without an input in time, in percent.
        fn run(&mut self, frames: u32) -> f64 {
            (self.late, self.stepped) = (0, 0);
            for _ in 0..frames {
                let due_us = self.due_us(self.frame);
                self.deliver(due_us);
                if !self.arrived.contains_key(&self.frame) {
                    self.late += 1;
                }
                self.stepped += 1;
                let advice = Advice {
                    margin_ms: self.margins_ms.iter().min().map(|ms| *ms as i16),
                    newest_input_frame: self.newest,
                };
                if let Some(way_us) = self.way(self.down_us) {
                    self.down.push((due_us + way_us, self.frame, advice));
                }
                self.frame += 1;
            }
            f64::from(self.late) * 100.0 / f64::from(self.stepped)
        }

        /// Everything that arrives anywhere up to `until_us`, in order.
        fn deliver(&mut self, until_us: u64) {
            loop {
                let down = self.down.iter().enumerate().min_by_key(|(_, packet)| packet.0);
                let up = self.up.iter().enumerate().min_by_key(|(_, packet)| packet.0);
                let (down, up) = (down.map(|(i, p)| (p.0, i)), up.map(|(i, p)| (p.0, i)));
                let next_is_down = match (down, up) {
                    (Some(down), Some(up)) => down.0 <= up.0,
                    (down, _) => down.is_some(),
                };
                let next = if next_is_down { down } else { up };
                let Some((at_us, index)) = next.filter(|next| next.0 <= until_us) else {
                    return;
                };
                if next_is_down {
                    let (_, frame, advice) = self.down.swap_remove(index);
                    if self.tells_loss {
                        self.pacer.on_datagram(u64::from(frame));
                    }
                    self.pacer.on_snapshot(frame, advice, at_us);
                    if let Some(newest) = self.pacer.take_frame(at_us)
                        && let Some(way_us) = self.way(self.up_us)
                    {
                        self.up.push((at_us + way_us, newest));
                    }
                } else {
                    let (_, newest) = self.up.swap_remove(index);
                    // Each datagram has the last eight inputs.
                    for frame in newest.saturating_sub(7)..=newest {
                        self.arrived.entry(frame).or_insert(at_us);
                    }
                    if self.newest < Some(newest) {
                        self.newest = Some(newest);
                        let margin_us = self.due_us(newest) as i64 - at_us as i64;
                        self.margins_ms.push_back(margin_us.div_euclid(1_000));
                        if self.margins_ms.len() > 100 {
                            self.margins_ms.pop_front();
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_steady_path_is_on_time_from_the_start() {
        for (hz, one_way_ms) in [(50, 0), (50, 15), (50, 100), (128, 30), (10, 60), (1, 20)] {
            let mut world = World::new(1, hz, one_way_ms, 0);
            world.run(20);
            let late = world.run(500);
            assert_eq!(late, 0.0, "{hz} Hz, {one_way_ms} ms");
        }
    }

    #[test]
    fn the_lead_is_no_larger_than_the_path_asks() {
        for one_way_ms in [0, 10, 40, 90] {
            let mut world = World::new(2, 50, one_way_ms, 0);
            world.pacer.change(20, 0);
            world.run(6_000);
            let least = (2 * one_way_ms).div_ceil(20) as u32 + 1;
            let lead = world.pacer.lead_frames();
            assert!((least..=least + 2).contains(&lead), "{lead} at {one_way_ms} ms, {least} needed");
            assert_eq!(world.run(500), 0.0);
        }
    }

    #[test]
    fn jitter_and_loss_cost_little() {
        let mut world = World::new(3, 50, 40, 30);
        world.loss_percent = 5;
        world.run(300);
        let late = world.run(5_000);
        assert!(late < 1.0, "{late} % of frames had no input in time");
    }

    #[test]
    fn with_loss_the_lead_leaves_time_for_the_copies() {
        for (loss_percent, late_percent_max) in [(1, 0.02), (5, 0.05), (10, 0.3)] {
            let late = |tells_loss: bool| {
                let mut world = World::new(9, 50, 40, 20);
                world.loss_percent = loss_percent;
                world.tells_loss = tells_loss;
                world.run(1_000);
                let late = world.run(50_000);
                println!("{loss_percent} %: {late} % late, lead {}", world.pacer.lead_frames());
                (late, world.pacer.lead_frames())
            };
            let ((late, lead), (blind, blind_lead)) = (late(true), late(false));
            assert!(late <= late_percent_max, "{late} % late at {loss_percent} % loss");
            assert!(late * 5.0 < blind, "{late} % and {blind} %");
            assert!(lead <= blind_lead + 5, "{lead} and {blind_lead}");
        }
    }

    #[test]
    fn loss_is_reckoned_from_the_numbers_alone() {
        let reckoned = |lost: &dyn Fn(u64) -> bool| {
            let mut loss = Loss::default();
            (1_000..4_000).filter(|number| !lost(*number)).for_each(|number| loss.note(number));
            loss.in_a_row
        };
        assert_eq!(reckoned(&|_| false), 0);
        assert!((1..=2).contains(&reckoned(&|number| number % 200 == 0)));
        assert_eq!(reckoned(&|number| number % 50 == 0), 2);
        assert_eq!(reckoned(&|number| number % 20 == 0), 3);
        assert_eq!(reckoned(&|number| number % 10 == 0), 4);
        assert_eq!(reckoned(&|number| number % 400 == 0 && number < 1_500), 0, "a loss of long ago");
        // In another order, nothing is missing.
        let mut loss = Loss::default();
        for number in (0..2_000).step_by(2) {
            loss.note(number + 1);
            loss.note(number);
        }
        assert_eq!(loss.in_a_row, 0);
        for number in [u64::MAX, 0, u64::MAX - 1, 1] {
            loss.note(number);
        }
    }

    #[test]
    fn without_a_round_trip_the_first_advice_corrects_the_lead() {
        let mut world = World::new(4, 50, 120, 0);
        world.pacer = Pacer::new(50);
        let first = world.run(50);
        assert!(first > 0.0);
        assert_eq!(world.run(300), 0.0);
    }

    #[test]
    fn a_longer_way_is_followed_within_a_second() {
        let mut world = World::new(5, 50, 20, 4);
        world.run(1_000);
        let before = world.pacer.lead_frames();
        (world.down_us, world.up_us) = (70_000, 90_000);
        let meanwhile = world.run(50);
        let late = world.run(250);
        assert!(late < 2.0, "{late} % late, {meanwhile} % in the first second");
        assert!(world.pacer.lead_frames() >= before + 5);
        assert!(world.pacer.lead_frames() <= before + 12, "{}", world.pacer.lead_frames());
    }

    #[test]
    fn a_shorter_way_is_followed_slowly() {
        let mut world = World::new(6, 50, 100, 2);
        world.run(1_000);
        let before = world.pacer.lead_frames();
        (world.down_us, world.up_us) = (20_000, 20_000);
        let mut last = before;
        for _ in 0..60 {
            assert_eq!(world.run(100), 0.0);
            let lead = world.pacer.lead_frames();
            assert!(lead <= last && last - lead <= 6, "from {last} to {lead} in 2 s");
            last = lead;
        }
        assert!(last <= before - 6, "still {last}");
    }

    #[test]
    fn clocks_that_drift_are_followed() {
        for ppm in [-300, 300] {
            let mut world = World::new(7, 50, 30, 5);
            world.drift_ppm = ppm;
            world.run(500);
            let late = world.run(10_000);
            assert!(late < 0.5, "{late} % at {ppm} ppm");
            assert!(world.pacer.lead_frames() < 9);
        }
    }

    #[test]
    fn a_host_that_lost_time_is_found_again() {
        let mut world = World::new(8, 50, 30, 3);
        world.run(500);
        let before = world.pacer.lead_frames();
        world.start_us += 400_000;
        world.run(150);
        // Its frames are 20 behind what the clock expected; leads must not stay off by that.
        let now_us = world.due_us(world.frame);
        let ahead = world.pacer.frame_now(now_us).unwrap() as i64 - i64::from(world.frame);
        assert!((-4..=0).contains(&ahead), "{ahead}");
        assert!(world.run(500) < 1.0);
        assert!(world.pacer.lead_frames() <= before + 2);
    }

    #[test]
    fn a_margin_that_is_too_small_raises_the_lead_once_until_it_shows() {
        let mut pacer = Pacer::new(50);
        let mut snapshot = |frame: u32, margin_ms| {
            // Nothing is missing: the host is ten frames in hand.
            let advice = Advice { margin_ms: Some(margin_ms), newest_input_frame: Some(frame + 10) };
            pacer.on_snapshot(frame, advice, u64::from(frame) * 20_000);
            pacer.lead_frames()
        };
        assert_eq!(snapshot(0, MARGIN_MS_MIN as i16), LEAD_FRAMES_FIRST);
        assert_eq!(snapshot(1, MARGIN_MS_MIN as i16 - 1), LEAD_FRAMES_FIRST + 1);
        // The same worst input is still in the host's window.
        for frame in 2..=100 {
            assert_eq!(snapshot(frame, MARGIN_MS_MIN as i16 - 1), LEAD_FRAMES_FIRST + 1);
        }
        // By now it speaks of the new lead: 38 ms late is two frames and a margin.
        assert_eq!(snapshot(200, -38), LEAD_FRAMES_FIRST + 4);
    }

    #[test]
    fn the_clock_follows_the_snapshots_that_came_fastest() {
        let mut pacer = Pacer::new(50);
        let advice = Advice { margin_ms: None, newest_input_frame: None };
        // Frame 0 comes 19 ms late, frame 1 on time, frame 2 late again.
        for (frame, late_us) in [(0, 19_000), (1, 0), (2, 15_000)] {
            pacer.on_snapshot(frame, advice, 100_000 + u64::from(frame) * 20_000 + late_us);
        }
        assert_eq!(pacer.frame_now(159_999), Some(2));
        assert_eq!(pacer.frame_now(160_000), Some(3));
        assert_eq!(pacer.frame_begins_us(3), Some(160_000));
    }

    #[test]
    fn a_frame_begins_when_the_clock_shows_it() {
        let advice = Advice { margin_ms: None, newest_input_frame: None };
        for hz in [1, 7, 50, 60, 128] {
            let mut pacer = Pacer::new(hz);
            assert_eq!(pacer.frame_begins_us(0), None);
            pacer.on_snapshot(3, advice, 5_000_000);
            for frame in 3..300 {
                let begins_us = pacer.frame_begins_us(frame).unwrap();
                assert_eq!(pacer.frame_now(begins_us), Some(frame), "{hz} Hz");
                assert_eq!(pacer.frame_now(begins_us - 1), Some(frame - 1), "{hz} Hz");
            }
        }
    }

    #[test]
    fn frames_rise_and_are_given_once() {
        let mut pacer = Pacer::new(50);
        assert_eq!(pacer.take_frame(0), None);
        let advice = Advice { margin_ms: None, newest_input_frame: None };
        pacer.on_snapshot(10, advice, 1_000_000);
        assert_eq!(pacer.take_frame(1_000_000), Some(10 + LEAD_FRAMES_FIRST));
        assert_eq!(pacer.take_frame(1_010_000), None);
        assert_eq!(pacer.take_frame(1_020_000), Some(11 + LEAD_FRAMES_FIRST));
        pacer.restart();
        assert_eq!(pacer.take_frame(1_040_000), None);
    }

    #[test]
    fn the_ends_of_the_range_do_no_harm() {
        let advice = Advice { margin_ms: Some(i16::MIN), newest_input_frame: Some(0) };
        for hz in [0, 1, 128, u16::MAX] {
            let mut pacer = Pacer::new(hz);
            pacer.on_rtt(u64::MAX / 200);
            assert!(pacer.lead_frames() <= 64);
            for (frame, now_us) in [(0, 0), (u32::MAX - 1, 1), (5, u64::MAX / 4)] {
                pacer.on_snapshot(frame, advice, now_us);
                pacer.take_frame(now_us);
            }
            assert!(pacer.lead_frames() <= 64);
        }
    }
}
