//! `holeshot bots`: drivers against a running host.

use anyhow::bail;
use clap::Args;
use serde_json::json;
use tokio::task::JoinSet;

use super::host::HostArgs;
use super::output::{note, say};
use super::race::{parse_skill, pick_cars};
use super::serve::stop_signal;
use crate::api::Api;
use crate::bots::{self, Bot};

/// Drivers that one process plays at most: a socket each, below the usual limit of 1,024 open files.
const DRIVERS_MAX: u32 = 400;

#[derive(Debug, Clone, Args)]
pub(super) struct BotsArgs {
    #[command(flatten)]
    host: HostArgs,
    /// Races at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=200))]
    races: u32,
    /// Drivers in each race
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    players: u32,
    /// Their skill: 0 a beginner, 1 near the best the car can do
    #[arg(long, value_name = "SKILL", default_value_t = 0.8, value_parser = parse_skill)]
    skill: f64,
    /// Decides cars, reactions and errors [default: random, printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Let inputs and snapshots travel over the WebSocket alone, as a browser would
    #[arg(long)]
    no_udp: bool,
}

pub(super) async fn bots(args: BotsArgs, as_json: bool) -> anyhow::Result<()> {
    if args.races.saturating_mul(args.players) > DRIVERS_MAX {
        bail!("{} races of {} drivers; one process plays {DRIVERS_MAX} drivers at most", args.races, args.players);
    }
    let seed = match args.seed {
        Some(seed) => seed,
        None => u64::from(u32::from_le_bytes(crate::identity::random()?)),
    };
    if !as_json {
        say(format_args!("seed {seed}"));
    }
    let stop = stop_signal()?;
    let api = args.host.api()?;
    let mut races = JoinSet::new();
    for race in 0..args.races {
        let seed = seed.wrapping_add(u64::from(race) * 1_000);
        let cars = pick_cars(seed, args.players as usize);
        let drivers: Vec<Bot> = cars
            .into_iter()
            .enumerate()
            .map(|(lane, car)| Bot {
                name: bots::name(lane),
                car,
                skill: args.skill,
                seed: seed.wrapping_add(lane as u64),
                with_udp: !args.no_udp,
            })
            .collect();
        let api = api.clone();
        races.spawn(async move { race_of(&api, drivers, seed, as_json).await });
    }
    let all = async {
        let mut failed = 0;
        while let Some(race) = races.join_next().await {
            match race? {
                Ok((room, reports)) if reports.iter().any(|report| report.ending != "finished") => {
                    failed += 1;
                    note(format_args!("room {room} was aborted"));
                }
                Ok((room, reports)) if as_json => {
                    say(json!({ "room": room, "players": reports }));
                }
                Ok((room, reports)) => {
                    say(format_args!("room {room}"));
                    for report in reports {
                        say(format_args!(
                            "  {:<8} {}: {} snapshots, {} missed, {} inputs over {}",
                            report.name,
                            report.ending,
                            report.snapshots_received,
                            report.snapshots_missed,
                            report.inputs_sent,
                            report.carrier.unwrap_or("nothing"),
                        ));
                    }
                }
                Err(error) => {
                    failed += 1;
                    note(format_args!("a race failed: {error:#}"));
                }
            }
        }
        if failed > 0 {
            bail!("{failed} of {} races failed", args.races);
        }
        Ok(())
    };
    tokio::select! {
        done = all => done,
        signal = stop => bail!("{signal}: the races were left"),
    }
}

async fn race_of(
    api: &Api,
    drivers: Vec<Bot>,
    seed: u64,
    as_json: bool,
) -> anyhow::Result<(String, Vec<bots::BotReport>)> {
    let players: Vec<_> = drivers.iter().map(|bot| json!({ "name": bot.name, "data": { "car": bot.car } })).collect();
    let room = api.create_room(&players, &json!({ "tree": "sportsman" }), Some(seed)).await?;
    if !as_json {
        // Now, for whoever wants to watch it or to give it other rules.
        say(format_args!("room {room} is open"));
    }
    let mut playing = JoinSet::new();
    for bot in drivers {
        let (api, room) = (api.clone(), room.clone());
        playing.spawn(async move { bots::play(&api, &room, &bot, None).await });
    }
    let mut reports = Vec::new();
    while let Some(played) = playing.join_next().await {
        reports.push(played??);
    }
    reports.sort_by_key(|report| report.player);
    Ok((room, reports))
}
