//! `holeshot bots`: drivers, or fighters of the arena, against a running host.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::host::HostArgs;
use super::output::{note, say};
use super::race::{parse_skill, pick_cars};
use super::serve::stop_signal;
use crate::api::Api;
use crate::bots::{self, Bot, BotReport, GameName, arena};

/// Bots that one process plays at most: a socket each, below the usual limit of 1,024 open files.
const BOTS_MAX: u32 = 400;

/// Best players of a match that are listed; the sums below them are of all.
const LISTED_MAX: usize = 10;

#[derive(Debug, Clone, Args)]
pub(super) struct BotsArgs {
    #[command(flatten)]
    host: HostArgs,
    /// What to play
    #[arg(long, value_enum, default_value_t = GameName::DragRace)]
    game: GameName,
    /// Races, or matches, at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=200))]
    races: u32,
    /// Bots in each
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    players: u32,
    /// The rooms' options as JSON [default: {"tree": "sportsman"}, in the arena {"map": "yard", "duration_s": 60}]
    #[arg(long, value_name = "JSON", value_parser = parse_options)]
    options: Option<Value>,
    /// Their skill: 0 a beginner, 1 near the best the car can do, or quick and sure
    #[arg(long, value_name = "SKILL", default_value_t = 0.8, value_parser = parse_skill)]
    skill: f64,
    /// Decides cars, reactions and errors [default: random, printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Let inputs and snapshots travel over the WebSocket alone, as a browser would
    #[arg(long)]
    no_udp: bool,
}

fn parse_options(text: &str) -> Result<Value, String> {
    let options: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if options.is_object() { Ok(options) } else { Err("a JSON object is wanted".into()) }
}

pub(super) async fn bots(args: BotsArgs, as_json: bool) -> anyhow::Result<()> {
    if args.races.saturating_mul(args.players) > BOTS_MAX {
        bail!("{} rooms of {} bots; one process plays {BOTS_MAX} bots at most", args.races, args.players);
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
        let (api, args) = (api.clone(), args.clone());
        races.spawn(async move {
            match args.game {
                GameName::DragRace => race_of(&api, &args, seed, as_json).await,
                GameName::Arena => match_of(&api, &args, seed, as_json).await,
            }
        });
    }
    let all = async {
        let mut failed = 0;
        while let Some(race) = races.join_next().await {
            match race? {
                Ok((room, reports)) if reports.iter().any(|report| report.ending != "finished") => {
                    failed += 1;
                    note(format_args!("room {room} was aborted"));
                }
                Ok((room, reports)) if as_json => say_json(args.game, &room, reports),
                Ok((room, reports)) => {
                    say(format_args!("room {room}"));
                    match args.game {
                        GameName::DragRace => reports.iter().for_each(say_report),
                        GameName::Arena => {
                            say(match_table(&reports)?.trim_end());
                        }
                    }
                }
                Err(error) => {
                    failed += 1;
                    note(format_args!("a game failed: {error:#}"));
                }
            }
        }
        if failed > 0 {
            bail!("{failed} of {} games failed", args.races);
        }
        Ok(())
    };
    tokio::select! {
        done = all => done,
        signal = stop => bail!("{signal}: the games were left"),
    }
}

async fn race_of(api: &Api, args: &BotsArgs, seed: u64, as_json: bool) -> anyhow::Result<(String, Vec<BotReport>)> {
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
    let players: Vec<_> = drivers.iter().map(|bot| json!({ "name": bot.name, "data": { "car": bot.car } })).collect();
    let options = args.options.clone().unwrap_or_else(|| json!({ "tree": "sportsman" }));
    let room = api.create_room(&players, &options, Some(seed)).await?;
    say_open(&room, as_json);
    let mut playing = JoinSet::new();
    for bot in drivers {
        let (api, room) = (api.clone(), room.clone());
        playing.spawn(async move { bots::play(&api, &room, &bot, None).await });
    }
    Ok((room, reports_of(playing).await?))
}

async fn match_of(api: &Api, args: &BotsArgs, seed: u64, as_json: bool) -> anyhow::Result<(String, Vec<BotReport>)> {
    let fighters = arena::fighters(args.players as usize, args.skill, seed, !args.no_udp);
    let players: Vec<_> = fighters.iter().map(|fighter| json!({ "name": fighter.name })).collect();
    let options = args.options.clone().unwrap_or_else(|| json!({ "map": "yard", "duration_s": 60 }));
    let room = api.create_room_of(Some(arena::MODULE), &players, &options, Some(seed)).await?;
    say_open(&room, as_json);
    let mut playing = JoinSet::new();
    for fighter in fighters {
        let (api, room) = (api.clone(), room.clone());
        playing.spawn(async move { arena::play(&api, &room, &fighter, None).await });
    }
    Ok((room, reports_of(playing).await?))
}

/// Now, for whoever wants to watch it or to give it other rules.
fn say_open(room: &str, as_json: bool) {
    if !as_json {
        say(format_args!("room {room} is open"));
    }
}

async fn reports_of(mut playing: JoinSet<anyhow::Result<BotReport>>) -> anyhow::Result<Vec<BotReport>> {
    let mut reports = Vec::new();
    while let Some(played) = playing.join_next().await {
        reports.push(played??);
    }
    reports.sort_by_key(|report| report.player);
    Ok(reports)
}

fn say_report(report: &BotReport) {
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

fn say_json(game: GameName, room: &str, mut reports: Vec<BotReport>) {
    match game {
        GameName::DragRace => say(json!({ "room": room, "players": reports })),
        GameName::Arena => {
            // All were told the same, which is long: once is enough.
            let outcome = reports.first().map(|report| report.outcome.clone()).unwrap_or_default();
            reports.iter_mut().for_each(|report| report.outcome = Value::Null);
            say(json!({ "room": room, "outcome": outcome, "players": reports }))
        }
    };
}

/// How a match ended: the best, and sums over all.
fn match_table(reports: &[BotReport]) -> anyhow::Result<String> {
    let first = reports.first().context("a match without players")?;
    let results = first.outcome.get("results").and_then(Value::as_array).context("the match ended without results")?;
    let number = |result: &Value, field: &str| result.pointer(field).and_then(Value::as_u64).unwrap_or_default();
    let mut ranked: Vec<&Value> = results.iter().collect();
    ranked.sort_by_key(|result| {
        let place = result.get("place").and_then(Value::as_u64);
        (place.unwrap_or(u64::MAX), number(result, "/player"))
    });
    let mut text = String::from("  place  player    outcome  frags  deaths  hits/shots  snapshots  missed  inputs\n");
    for result in ranked.iter().take(LISTED_MAX) {
        let player = number(result, "/player");
        let Some(report) = reports.iter().find(|report| u64::from(report.player) == player) else { continue };
        text += &format!(
            "  {:>5}  {:<8}  {:<7}  {:>5}  {:>6}  {:>10}  {:>9}  {:>6}  {:>6}\n",
            number(result, "/place"),
            report.name,
            result.get("outcome").and_then(Value::as_str).unwrap_or("?"),
            number(result, "/data/frags"),
            number(result, "/data/deaths"),
            format!("{}/{}", number(result, "/data/hits"), number(result, "/data/shots")),
            report.snapshots_received,
            report.snapshots_missed,
            report.inputs_sent,
        );
    }
    if ranked.len() > LISTED_MAX {
        text += &format!("  … and {} more\n", ranked.len() - LISTED_MAX);
    }
    let sum = |count: fn(&BotReport) -> u64| reports.iter().map(count).sum::<u64>();
    let frags: u64 = results.iter().map(|result| number(result, "/data/frags")).sum();
    let carried = |carrier| reports.iter().filter(|report| report.carrier == Some(carrier)).count();
    text += &format!(
        "  {} players ({} over udp, {} over websocket), {frags} frags; {} frames: {} snapshots came, {} were missed, {} inputs\n",
        reports.len(),
        carried("udp"),
        carried("websocket"),
        number(&first.outcome, "/frames"),
        sum(|report| report.snapshots_received),
        sum(|report| report.snapshots_missed),
        sum(|report| report.inputs_sent),
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(player: u16, results: &Value) -> BotReport {
        BotReport {
            name: bots::name(player.into()),
            player,
            ending: "finished".into(),
            outcome: json!({ "frames": 300, "results": results }),
            snapshots_received: 298,
            snapshots_missed: 2,
            inputs_sent: 290,
            lead_frames: 2,
            rtt_us: None,
            carrier: Some("udp"),
        }
    }

    #[test]
    fn the_best_are_listed_first_and_sums_are_of_all() {
        let result = |player: u16| {
            let place = if player == 11 { Value::Null } else { json!(11 - player) };
            let data = json!({ "frags": player, "deaths": 1, "hits": 2, "shots": 9 });
            json!({ "player": player, "place": place, "outcome": if player == 10 { "won" } else { "lost" }, "data": data })
        };
        let results: Value = (0..12).map(result).collect();
        let reports: Vec<BotReport> = (0..12).map(|player| report(player, &results)).collect();
        let table = match_table(&reports).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 1 + LISTED_MAX + 2, "{table}");
        assert!(lines[1].trim_start().starts_with("1  Cleo-2    won         10"), "{table}");
        assert!(lines[11].contains("2 more"), "{table}");
        assert!(
            lines[12].contains("12 players (12 over udp, 0 over websocket), 66 frags; 300 frames: 3576 snapshots"),
            "{table}"
        );
        assert!(match_table(&[]).is_err() && match_table(&[report(0, &Value::Null)]).is_err());
    }

    #[test]
    fn options_are_a_json_object() {
        assert_eq!(parse_options(r#"{"map":"open"}"#), Ok(json!({ "map": "open" })));
        for bad in ["", "map", "[1]", "3"] {
            assert!(parse_options(bad).is_err(), "{bad}");
        }
    }
}
