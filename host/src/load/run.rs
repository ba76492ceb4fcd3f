//! `holeshot load`: lets a load play on a host for a while, looks at it as it goes, and gathers what came of it.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::time::sleep;

use super::report::{Curve, Dropped, Report, Sample};
use super::{Counts, Load, Options as LoadOptions};
use crate::api::Api;
use crate::budget::counts::{self, PAGES_APART_MS};

/// Longest time that is measured, in seconds: a day.
pub const SECONDS_MAX: u64 = 86_400;
/// Samples over the time that is measured: a chart is 900 pixels wide.
const SAMPLES_MAX: u64 = 300;
/// How often it is looked how far the rooms are, in milliseconds.
const LOOK_MS: u64 = 100;

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What is played.
    pub load: LoadOptions,
    /// For how long, in seconds, from the moment at which all rooms are open and all games have begun.
    pub seconds: u64,
    /// Where the host is, in words.
    pub host: String,
}

/// Runs a load, and tells what came of it. When `stop` is over the run ends early, with what there is by then.
///
/// # Errors
/// Options out of range, or a host or players that do not do what they should.
pub async fn run(
    api: &Api,
    options: &Options,
    stop: impl Future<Output = ()>,
    mut progress: impl FnMut(&str),
) -> anyhow::Result<Report> {
    if !(1..=SECONDS_MAX).contains(&options.seconds) {
        bail!("1 to {SECONDS_MAX} seconds can be measured, not {}", options.seconds);
    }
    let page_first = counts::page(api).await.ok();
    let load = Load::begin(api, &options.load)?;
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        opened = opened(&load, options.load.rooms, &mut progress) => opened?,
        () = &mut stop => bail!("stopped before all rooms were open"),
    }
    tokio::select! {
        begun = load.begun() => begun?,
        () = &mut stop => bail!("stopped before all games had begun"),
    }
    // What happened while the rooms were opened is not counted, but for the account of inputs, which is of whole games.
    let (begun, counts_before, observed_before) = (Instant::now(), load.counts(), load.observed());
    let page_before = counts::page(api).await.ok();
    let every = Duration::from_secs(options.seconds.div_ceil(SAMPLES_MAX));
    let mut samples = Vec::new();
    let mut last = (begun, counts_before, observed_before.clone());
    let mut early = false;
    while !early && begun.elapsed() < Duration::from_secs(options.seconds) {
        progress(&format!("{} of {} s", begun.elapsed().as_secs(), options.seconds));
        tokio::select! {
            () = sleep(every) => {}
            () = &mut stop => early = true,
        }
        let now = (Instant::now(), load.counts(), load.observed());
        let seen = now.2.since(&last.2);
        let seconds = now.0.duration_since(last.0).as_secs_f64().max(1e-3);
        let counted = now.1.since(last.1);
        samples.push(Sample {
            at_s: now.0.duration_since(begun).as_secs_f64(),
            players: now.1.games_started.saturating_sub(now.1.games_over),
            snapshots_per_s: counted.snapshots as f64 / seconds,
            snapshots_missed: counted.snapshots_missed,
            snapshot_gap_us: seen.snapshot_gap.quantiles(),
            input_delay_us: seen.input_delay.quantiles(),
            send_late_us: seen.send_late.quantiles(),
        });
        last = now;
    }
    let host_frame = match (page_before, counts::page(api).await.ok()) {
        (Some(before), Some(after)) => after.since(&before).ok(),
        _ => None,
    };
    let (ended, players, observed) = (last.0, last.1.since(counts_before), last.2.since(&observed_before));
    progress("letting everybody leave, and comparing with the host's records");
    let stopped = load.stop().await?;
    let whole: Counts = stopped.counts;
    // Not the page of before: it counts for half a second.
    sleep(Duration::from_millis(PAGES_APART_MS)).await;
    let dropped = |page: Option<counts::Page>| page.and_then(|page| page.dropped());
    let dropped_host = match (dropped(page_first), dropped(counts::page(api).await.ok())) {
        (Some(before), Some(after)) => after.checked_sub(before),
        _ => None,
    };
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        optimised: !cfg!(debug_assertions),
        host: options.host.clone(),
        game: game(&options.load),
        rooms: options.load.rooms,
        players_per_room: options.load.players,
        threads: options.load.threads,
        seed: options.load.seed,
        ramp_rooms_per_s: options.load.ramp_rooms_per_s,
        recorded: options.load.recording.is_some(),
        network: options.load.impairment,
        seconds: ended.duration_since(begun).as_secs_f64(),
        players,
        whole,
        snapshot_gap_us: observed.snapshot_gap.quantiles(),
        input_delay_us: observed.input_delay.quantiles(),
        send_late_us: observed.send_late.quantiles(),
        curves: [&observed.snapshot_gap, &observed.input_delay, &observed.send_late].map(Curve::of),
        inputs: stopped.account,
        dropped: Dropped { host: dropped_host, players: stopped.dropped },
        host_frame,
        trouble: stopped.trouble,
        samples,
    })
}

async fn opened(load: &Load, rooms: usize, progress: &mut impl FnMut(&str)) -> anyhow::Result<()> {
    loop {
        let left = load.opening()?;
        if left == 0 {
            return Ok(());
        }
        progress(&format!("{} of {rooms} rooms are open", rooms - left));
        sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

fn game(options: &LoadOptions) -> String {
    match (&options.recording, &options.module) {
        (Some(recording), _) => recording.module().to_owned(),
        (None, Some(module)) => module.clone(),
        (None, None) => "the default game".to_owned(),
    }
}
