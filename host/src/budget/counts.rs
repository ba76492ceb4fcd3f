//! N and P of a host's frame, from two pages of its `/metrics`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use tokio::time::sleep;

use crate::api::Api;

/// The length of a frame in which a shard's work is told, in milliseconds: a tick of a room with 50 of them in a second.
pub const FRAME_MS: f64 = 20.0;
/// How old a page may be before another one is made, in milliseconds, and some: so that two pages are never the same.
pub const PAGES_APART_MS: u64 = 550;
/// Longest page that is read, in bytes: a host writes a few hundred kilobytes.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// Greatest figure that is believed: a count of nanoseconds comes to it after thirty years.
const FIGURE_MAX: f64 = 1e18;

/// A page at a moment: the sum of all shards of each figure.
#[derive(Debug, Clone)]
pub struct Page {
    at: Instant,
    figures: BTreeMap<String, f64>,
    lateness_ranges: BTreeMap<u64, f64>,
}

/// What happens in a frame of all shards together, on average.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PerFrame {
    /// Rooms that were stepped: those that were open and whose game ran, if all have 50 ticks in a second.
    pub rooms: f64,
    /// Players and spectators of each of them.
    pub players: f64,
    /// Datagrams that came.
    pub datagrams: f64,
    /// Inputs that were cached, copies included.
    pub inputs: f64,
    /// Snapshots sent.
    pub snapshots: f64,
    /// Datagrams sent: parts of snapshots, and answers.
    pub sent: f64,
    /// Public events told.
    pub public_events: f64,
    /// Events put into the outbox.
    pub internal_events: f64,
    /// Sessions opened.
    pub opened: f64,
    /// Sessions ended.
    pub closed: f64,
    /// Times that shards slept.
    pub sleeps: f64,
    /// Processor time of the shards, in microseconds; none where the host's system does not say.
    pub cpu_us: Option<f64>,
    /// How late 99 of 100 steps came at most, in milliseconds; to the next of a few ranges.
    pub lateness_p99_ms: f64,
}

/// Reads a page.
///
/// # Errors
/// If the host cannot be reached, or what answers is no host of this version.
pub async fn page(api: &Api) -> anyhow::Result<Page> {
    let (bytes, _) = api.page("/metrics").await.context("no figures of the host")?;
    let page = Page::read(&String::from_utf8_lossy(&bytes), Instant::now())?;
    Ok(page)
}

/// Reads two pages so many seconds apart, and what happened in between.
///
/// # Errors
/// As for [`page`].
pub async fn between(api: &Api, wait: Duration) -> anyhow::Result<PerFrame> {
    let before = page(api).await?;
    sleep(wait.max(Duration::from_millis(PAGES_APART_MS))).await;
    page(api).await?.since(&before)
}

impl Page {
    /// Reads the text of a page that came then.
    ///
    /// # Errors
    /// If it is none of a host of this version.
    pub fn read(text: &str, at: Instant) -> anyhow::Result<Self> {
        if text.len() > PAGE_BYTES_MAX {
            bail!("the host's figures have more than {PAGE_BYTES_MAX} bytes");
        }
        let mut page = Self { at, figures: BTreeMap::new(), lateness_ranges: BTreeMap::new() };
        for line in text.lines().filter(|line| line.starts_with("holeshot_shard_") || line.starts_with("holeshot_udp_"))
        {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Some(value) = value.parse::<f64>().ok().filter(|value| (0.0..=FIGURE_MAX).contains(value)) else {
                continue;
            };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            if name == "holeshot_shard_lateness_seconds_bucket" {
                let most = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
                let most_s: f64 = most.and_then(|most| most.parse().ok()).unwrap_or(f64::INFINITY);
                *page.lateness_ranges.entry((most_s * 1e6) as u64).or_default() += value;
            } else if !labels.contains("le=") && !labels.contains("quantile=") {
                *page.figures.entry(name.to_owned()).or_default() += value;
            }
        }
        if !page.figures.contains_key("holeshot_shard_sleeps_total") {
            bail!("what answers tells no `holeshot_shard_sleeps`; is it a Holeshot host of this version?");
        }
        Ok(page)
    }

    /// Rooms that are open.
    #[must_use]
    pub fn rooms(&self) -> f64 {
        self.figures.get("holeshot_shard_rooms").copied().unwrap_or_default()
    }

    /// Datagrams that the host's system dropped before the host read them, since it started; none where it does not say.
    #[must_use]
    pub fn dropped(&self) -> Option<u64> {
        self.figures.get("holeshot_udp_datagrams_dropped_total").map(|dropped| *dropped as u64)
    }

    /// What happened since an earlier page.
    ///
    /// # Errors
    /// If the host began anew in between.
    pub fn since(&self, earlier: &Self) -> anyhow::Result<PerFrame> {
        let frames = self.at.saturating_duration_since(earlier.at).as_secs_f64() * 1_000.0 / FRAME_MS;
        let now = |name: &str| self.figures.get(&format!("holeshot_shard_{name}")).copied();
        let delta = |name: &str| {
            let name = format!("{name}_total");
            Some(now(&name)? - earlier.figures.get(&format!("holeshot_shard_{name}")).copied()?)
        };
        let per_frame = |name: &str| delta(name).unwrap_or_default() / frames;
        let counters =
            self.figures.keys().filter_map(|name| name.strip_prefix("holeshot_shard_")?.strip_suffix("_total"));
        let fell = |(most, before): (&u64, &f64)| self.lateness_ranges.get(most).is_none_or(|now| now < before);
        if frames <= 0.0
            || counters.filter_map(delta).any(|more| more < 0.0)
            || earlier.lateness_ranges.iter().any(fell)
        {
            bail!("the host began anew between two looks at its figures");
        }
        let rooms = per_frame("ticks");
        let sessions = |page: &Self| page.figures.get("holeshot_shard_sessions").copied().unwrap_or_default();
        let open = sessions(self).midpoint(sessions(earlier));
        let opened = per_frame("sessions_opened");
        Ok(PerFrame {
            rooms,
            players: if rooms > 0.0 { open / rooms } else { 0.0 },
            datagrams: per_frame("datagrams_received"),
            inputs: per_frame("inputs"),
            snapshots: per_frame("snapshots"),
            sent: per_frame("datagrams_sent"),
            public_events: per_frame("public_events"),
            internal_events: per_frame("internal_events"),
            opened,
            closed: (opened - (sessions(self) - sessions(earlier)) / frames).max(0.0),
            sleeps: per_frame("sleeps"),
            cpu_us: delta("cpu_seconds").map(|cpu_s| cpu_s * 1e6 / frames),
            lateness_p99_ms: self.lateness_p99_us(earlier) / 1_000.0,
        })
    }

    /// Within the range that has it, a straight line is drawn.
    fn lateness_p99_us(&self, earlier: &Self) -> f64 {
        let ranges = self.lateness_ranges.iter().map(|(most, count)| {
            (*most as f64, count - earlier.lateness_ranges.get(most).copied().unwrap_or_default())
        });
        let ranges: Vec<(f64, f64)> = ranges.collect();
        let wanted = ranges.last().map_or(0.0, |(_, all)| all * 0.99);
        let (mut low, mut seen) = (0.0, 0.0);
        for (most, count) in ranges {
            if count >= wanted && count > seen {
                let part = ((wanted - seen) / (count - seen)).clamp(0.0, 1.0);
                return if most < 1e12 { low + (most - low) * part } else { low };
            }
            (low, seen) = (most, count);
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ticks: u32, cpu: f64, sessions: u32, opened: u32, buckets: [u32; 3]) -> String {
        let [a, b, c] = buckets;
        format!(
            "# HELP x y\nholeshot_shard_ticks_total{{shard=\"0\"}} {ticks}\nholeshot_shard_ticks_total{{shard=\"1\"}} 100\n\
             holeshot_shard_sleeps_total{{shard=\"0\"}} {ticks}\nholeshot_shard_cpu_seconds_total{{shard=\"0\"}} {cpu}\n\
             holeshot_shard_sessions{{shard=\"0\"}} {sessions}\nholeshot_shard_sessions_opened_total{{shard=\"0\"}} {opened}\n\
             holeshot_shard_lateness_seconds_bucket{{shard=\"0\",le=\"0.001\"}} {a}\n\
             holeshot_shard_lateness_seconds_bucket{{shard=\"0\",le=\"0.004\"}} {b}\n\
             holeshot_shard_lateness_seconds_bucket{{shard=\"0\",le=\"+Inf\"}} {c}\nother_thing 7\n# EOF\n"
        )
    }

    #[test]
    fn what_happened_between_two_pages_is_told_per_frame() {
        let begun = Instant::now();
        let before = Page::read(&text(1_000, 1.0, 20, 20, [0, 0, 0]), begun).unwrap();
        let after = Page::read(&text(3_000, 1.5, 20, 30, [98, 100, 100]), begun + Duration::from_secs(2)).unwrap();
        let counts = after.since(&before).unwrap();
        assert_eq!((counts.rooms, counts.players, counts.cpu_us), (20.0, 1.0, Some(5_000.0)));
        assert_eq!((counts.opened, counts.closed, counts.sleeps), (0.1, 0.1, 20.0));
        assert!((counts.lateness_p99_ms - 2.5).abs() < 1e-9, "{counts:?}");
        assert!(before.since(&after).is_err(), "backwards");
    }

    #[test]
    fn what_is_no_page_is_refused() {
        for text in ["", "<html>", "holeshot_shard_ticks_total{shard=\"0\"} x", "holeshot_shard_sleeps_total"] {
            assert!(Page::read(text, Instant::now()).is_err(), "{text}");
        }
    }
}
