//! What a host's shards did between two moments, to every quantile: two answers of its `/api/shards`. The ranges of `/metrics` are four times as wide as the
//! one before, which is too coarse for one lateness in a thousand.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::Api;

/// Most shards that an answer may have: the most that a host has.
const SHARDS_MAX: usize = 256;
/// Most steps of a scale that an answer may have: 6 times as many as the scale of lateness has.
const STEPS_MAX: usize = 4_096;
/// Greatest count that is believed: of nanoseconds it comes together in thirty years.
const COUNT_MAX: u64 = 1_000_000_000_000_000_000;

/// What all shards of a host counted so far, or between two moments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shards {
    /// Open rooms.
    pub rooms: u64,
    /// Processor time of their threads, in nanoseconds; none where the host's system does not say.
    pub cpu_ns: Option<u64>,
    /// Frames of all rooms.
    pub ticks: u64,
    /// Frames never made up for.
    pub ticks_lost: u64,
    /// Players of frames whose input was there.
    pub inputs_fresh: u64,
    /// Players of frames whose input was lost or late.
    pub inputs_missing: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// How many steps came how late: by the greatest microseconds of a step of the scale.
    pub lateness_us: BTreeMap<u64, u64>,
}

/// The spread of how late steps came, in microseconds, to 6 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Lateness {
    /// Half of them came at most so late.
    pub p50_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// 999 of 1,000.
    pub p999_us: u64,
    /// All of them.
    pub max_us: u64,
}

#[derive(Deserialize)]
struct Answer {
    shards: Vec<Shard>,
}

#[derive(Deserialize)]
struct Shard {
    rooms: u64,
    cpu_ns: Option<u64>,
    ticks: u64,
    ticks_lost: u64,
    inputs_fresh: u64,
    inputs_repeated: u64,
    inputs_absent: u64,
    datagrams_received: u64,
    received_bytes: u64,
    datagrams_sent: u64,
    sent_bytes: u64,
    lateness_us: Vec<(u64, u64)>,
}

impl Shards {
    /// Asks a host.
    ///
    /// # Errors
    /// If it cannot be reached, or what answers is no host of this version.
    pub async fn of(api: &Api) -> anyhow::Result<Self> {
        Self::read(api.get("/api/shards").await?)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// If it is none of a host of this version.
    pub fn read(answer: Value) -> anyhow::Result<Self> {
        let answer: Answer = serde_json::from_value(answer)
            .context("what answers does not tell its shards as a Holeshot host of this version does")?;
        if answer.shards.is_empty() || answer.shards.len() > SHARDS_MAX {
            bail!("{} shards answer; a host has 1 to {SHARDS_MAX}", answer.shards.len());
        }
        let mut all = Self { cpu_ns: Some(0), ..Self::default() };
        for shard in answer.shards {
            if shard.lateness_us.len() > STEPS_MAX {
                bail!("a scale of {} steps; a host's has {STEPS_MAX} at most", shard.lateness_us.len());
            }
            let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more).min(COUNT_MAX);
            add(&mut all.rooms, shard.rooms);
            all.cpu_ns = all.cpu_ns.zip(shard.cpu_ns).map(|(sum, ns)| sum.saturating_add(ns).min(COUNT_MAX));
            add(&mut all.ticks, shard.ticks);
            add(&mut all.ticks_lost, shard.ticks_lost);
            add(&mut all.inputs_fresh, shard.inputs_fresh);
            add(&mut all.inputs_missing, shard.inputs_repeated.saturating_add(shard.inputs_absent));
            add(&mut all.datagrams_received, shard.datagrams_received);
            add(&mut all.received_bytes, shard.received_bytes);
            add(&mut all.datagrams_sent, shard.datagrams_sent);
            add(&mut all.sent_bytes, shard.sent_bytes);
            for (most_us, count) in shard.lateness_us {
                add(all.lateness_us.entry(most_us).or_default(), count);
            }
        }
        Ok(all)
    }

    /// What was counted since an earlier moment; the rooms are those of now.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let steps = self.lateness_us.iter().map(|(most_us, count)| {
            (*most_us, count.saturating_sub(earlier.lateness_us.get(most_us).copied().unwrap_or_default()))
        });
        Self {
            rooms: self.rooms,
            cpu_ns: self.cpu_ns.zip(earlier.cpu_ns).map(|(now, before)| now.saturating_sub(before)),
            ticks: self.ticks.saturating_sub(earlier.ticks),
            ticks_lost: self.ticks_lost.saturating_sub(earlier.ticks_lost),
            inputs_fresh: self.inputs_fresh.saturating_sub(earlier.inputs_fresh),
            inputs_missing: self.inputs_missing.saturating_sub(earlier.inputs_missing),
            datagrams_received: self.datagrams_received.saturating_sub(earlier.datagrams_received),
            received_bytes: self.received_bytes.saturating_sub(earlier.received_bytes),
            datagrams_sent: self.datagrams_sent.saturating_sub(earlier.datagrams_sent),
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
            lateness_us: steps.filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// How late steps came.
    #[must_use]
    pub fn lateness(&self) -> Lateness {
        let all = self.lateness_us.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        let quantile = |of_all: f64| {
            let rank = (all as f64 * of_all).ceil().max(1.0) as u64;
            let mut seen = 0_u64;
            let within = self.lateness_us.iter().find(|(_, count)| {
                seen = seen.saturating_add(**count);
                seen >= rank
            });
            within.map_or(0, |(most_us, _)| *most_us)
        };
        Lateness {
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: self.lateness_us.last_key_value().map_or(0, |(most_us, _)| *most_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(ticks: u64, lateness_us: &[(u64, u64)]) -> Value {
        let shard = |index: u64| {
            json!({
                "shard": index, "rooms": 2, "sessions": 4, "cpu_ns": 1_000, "ticks": ticks, "ticks_lost": 1,
                "inputs_fresh": ticks.saturating_mul(2), "inputs_repeated": 3, "inputs_absent": 4, "datagrams_received": 5,
                "received_bytes": 500, "datagrams_sent": 6, "sent_bytes": 600, "lateness_us": lateness_us, "step_us": [],
            })
        };
        json!({ "shards": [shard(0), shard(1)] })
    }

    #[test]
    fn what_came_in_between_is_told_to_the_quantile() {
        let before = Shards::read(answer(100, &[(5, 50), (40, 50)])).unwrap();
        let after = Shards::read(answer(1_100, &[(5, 540), (40, 550), (700, 8), (9_000, 2)])).unwrap();
        let between = after.since(&before);
        assert_eq!((between.rooms, between.ticks, between.cpu_ns, between.inputs_fresh), (4, 2_000, Some(0), 4_000));
        assert_eq!((after.inputs_missing, between.inputs_missing), (14, 0));
        // Of both shards: 980 up to 5 us, 1,000 up to 40, 16 up to 700, 4 up to 9,000.
        assert_eq!(between.lateness(), Lateness { p50_us: 40, p99_us: 40, p999_us: 9_000, max_us: 9_000 });
        assert_eq!(Shards::default().lateness(), Lateness::default());
        assert_eq!(before.since(&after).ticks, 0);
    }

    #[test]
    fn what_no_host_says_is_refused() {
        let mut long = answer(1, &[]);
        long["shards"][0]["lateness_us"] = (0..5_000).map(|step| json!([step, 1])).collect();
        for answer in [json!({}), json!({ "shards": [] }), json!({ "shards": [{}] }), long] {
            assert!(Shards::read(answer).is_err());
        }
        let huge = answer(u64::MAX, &[(1, u64::MAX), (1, u64::MAX)]);
        assert_eq!(Shards::read(huge).unwrap().ticks, COUNT_MAX);
    }
}
