//! `holeshot race`: a host, drivers and a race in one process, on free ports, shown as it happens.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::output::say;
use super::serve::stop_signal;
use super::slips;
use super::view::View;
use crate::api::Api;
use crate::bots::{self, Bot, BotReport, Seen};
use crate::config::Settings;
use crate::server::Server;

/// How long a race may take from its opening to its results, in seconds: cutscene, countdown, staging, a slow car, and a busy machine.
const RACE_WAIT_MAX_S: u64 = 180;
/// How long its results may take from the broker into the records, in seconds.
const RECORD_WAIT_MAX_S: u64 = 10;
/// Sights that may wait for the screen: 5 s of them. A slow terminal misses some.
const SIGHTS_QUEUED_MAX: usize = 256;
/// Lanes that a race shown here may have.
const LANES_MAX: usize = 8;

#[derive(Debug, Clone, Args)]
pub(super) struct RaceArgs {
    /// Cars, one per lane, 1 to 8 [default: two that the seed picks]
    #[arg(long, value_name = "CAR,CAR", value_delimiter = ',', value_parser = known_car)]
    cars: Vec<String>,
    /// List the cars and end
    #[arg(long)]
    list_cars: bool,
    /// Skill of the drivers, one for all or one per lane: 0 a beginner, 1 near the best the car can do
    #[arg(long, value_name = "SKILL", value_delimiter = ',', default_value = "0.8", value_parser = parse_skill)]
    skill: Vec<f64>,
    /// Lamps of the Christmas tree: pro (.400 s) or sportsman (.500 s)
    #[arg(long, default_value = "sportsman", value_parser = ["pro", "sportsman"])]
    tree: String,
    /// Decides cars, reactions and errors; the same seed gives the same drivers [default: random, printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Let inputs and snapshots travel over the WebSocket alone, as a browser would
    #[arg(long)]
    no_udp: bool,
    /// Folder for the records
    #[arg(long, env = "HOLESHOT_DATA_DIR", value_name = "FOLDER", default_value = "holeshot-data")]
    data_dir: PathBuf,
}

pub(super) async fn race(args: RaceArgs, json: bool) -> anyhow::Result<()> {
    if args.list_cars {
        return list_cars(json);
    }
    let seed = match args.seed {
        Some(seed) => seed,
        // 32 bits are enough for a seed that people may type again.
        None => u64::from(u32::from_le_bytes(crate::identity::random()?)),
    };
    let bots = drivers(&args, seed)?;
    let stop = stop_signal()?;
    let any_port = Some(std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0)));
    let settings = Settings {
        http_listen: any_port,
        udp_listen: any_port,
        mqtt_listen: any_port,
        data_dir: Some(args.data_dir.clone()),
        // Nobody comes later to read the outcome.
        linger_s: Some(1),
        ..Settings::default()
    };
    if !json {
        say(format_args!("starting a host"));
    }
    let mut stop = std::pin::pin!(stop);
    let server = tokio::select! {
        server = Server::start(settings.resolve()?) => server?,
        signal = &mut stop => bail!("{signal}: the host was not started"),
    };
    if !json {
        let addresses = server.addresses();
        say(format_args!(
            "host on HTTP and WebSocket {}, UDP {}, MQTT {}; seed {seed}",
            addresses.http, addresses.udp, addresses.mqtt
        ));
    }
    let raced = tokio::select! {
        raced = run(&server, &bots, &args.tree, seed, json) => raced,
        signal = &mut stop => Err(anyhow::anyhow!("{signal}: the race was broken off")),
    };
    let again = stop_signal()?;
    // `Settings::default` keeps the records in this process.
    let records = server.addresses().records.clone().unwrap_or_default();
    let flush = tokio::select! {
        flush = server.stop() => flush?,
        signal = again => bail!("{signal} came a second time; events that are not recorded yet will be at the next start"),
    };
    let (room, record, reports) = raced?;
    if flush.left > 0 {
        bail!("{} events were not recorded in time; the next start on {} does it", flush.left, args.data_dir.display());
    }
    if json {
        say(json!({ "room": room, "seed": seed, "records": records, "record": record, "players": reports }));
        return Ok(());
    }
    say(slips::table(&record).trim_end());
    for report in &reports {
        say(format_args!(
            "{:<8} {} snapshots, {} missed; {} inputs, {} frames ahead, over {}",
            report.name,
            report.snapshots_received,
            report.snapshots_missed,
            report.inputs_sent,
            report.lead_frames,
            report.carrier.unwrap_or("nothing"),
        ));
    }
    say(format_args!("\nrecords: {}", records.display()));
    say(format_args!("  sqlite3 {} \"select kind, json from events where room = '{room}'\"", records.display()));
    say(format_args!("journal: holeshot replay {room} --data-dir {}", args.data_dir.display()));
    Ok(())
}

/// Runs one race on a host: its room, its record, and how it went for each player.
async fn run(
    server: &Server,
    bots: &[Bot],
    tree: &str,
    seed: u64,
    json: bool,
) -> anyhow::Result<(String, Value, Vec<BotReport>)> {
    let api = Api::new(&server.url())?.with_token(server.admin().clone());
    let players: Vec<_> = bots.iter().map(|bot| json!({ "name": bot.name, "data": { "car": bot.car } })).collect();
    let room = api.create_room(&players, &json!({ "tree": tree }), Some(seed)).await?;
    let deadline = Instant::now() + Duration::from_secs(RACE_WAIT_MAX_S);

    let (sights, mut seen) = mpsc::channel(SIGHTS_QUEUED_MAX);
    let mut playing = JoinSet::new();
    let mut sights = Some(sights);
    for bot in bots {
        // One pair of eyes is enough: every player sees every lane.
        let (api, room, bot, sights) = (api.clone(), room.clone(), bot.clone(), sights.take());
        playing.spawn(async move { bots::play(&api, &room, &bot, sights).await });
    }
    let drivers = bots.iter().map(|bot| (bot.name.as_str(), bot.car.as_str()));
    let mut view = View::new(drivers, std::io::stdout().is_terminal(), json);
    let mut reports = Vec::with_capacity(bots.len());
    while reports.len() < bots.len() {
        tokio::select! {
            Some(sight) = seen.recv() => match sight {
                // The race goes on when nobody looks any more; its record is as good.
                Seen::Event(event) => view.event(&event).unwrap_or_default(),
                Seen::Snapshot(snapshot) => view.snapshot(&snapshot).unwrap_or_default(),
            },
            played = timeout_at(deadline, playing.join_next()) => match played {
                Ok(Some(played)) => reports.push(played??),
                Ok(None) => break,
                Err(_) => bail!("the race was not over within {RACE_WAIT_MAX_S} s; is this machine very busy?"),
            },
        }
    }
    while let Ok(sight) = seen.try_recv() {
        if let Seen::Event(event) = sight {
            view.event(&event).unwrap_or_default();
        }
    }
    view.end().unwrap_or_default();
    reports.sort_by_key(|report| report.player);

    // What is shown as the result is what the records say: it went through the broker and the manager.
    let deadline = Instant::now() + Duration::from_secs(RECORD_WAIT_MAX_S);
    loop {
        let answer = api.get(&format!("/api/rooms/{room}")).await?;
        let record = answer.get("recorded").cloned().unwrap_or_default();
        if record.get("ended_at").is_some_and(|ended| !ended.is_null()) {
            return Ok((room, record, reports));
        }
        if Instant::now() > deadline {
            bail!("the race was over, but its end did not reach the records within {RECORD_WAIT_MAX_S} s");
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn known_car(id: &str) -> Result<String, String> {
    drag_race::find_car(id).map(|(_, car)| car.id.to_string()).map_err(|unknown| unknown.to_string())
}

/// Reads a skill.
pub(super) fn parse_skill(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|skill| (0.0..=1.0).contains(skill)).ok_or_else(|| "accepted: 0 to 1".to_owned())
}

fn drivers(args: &RaceArgs, seed: u64) -> anyhow::Result<Vec<Bot>> {
    let cars = if args.cars.is_empty() { pick_cars(seed, 2) } else { args.cars.clone() };
    if cars.len() > LANES_MAX {
        bail!("{} cars; a race shown here has 1 to {LANES_MAX} lanes", cars.len());
    }
    if args.skill.len() != 1 && args.skill.len() != cars.len() {
        bail!("{} skills for {} cars; give one for all or one per car", args.skill.len(), cars.len());
    }
    let skills = args.skill.iter().cycle();
    Ok(cars
        .into_iter()
        .zip(skills)
        .enumerate()
        .map(|(lane, (car, &skill))| Bot {
            name: bots::name(lane),
            car,
            skill,
            seed: seed.wrapping_add(lane as u64),
            with_udp: !args.no_udp,
        })
        .collect())
}

/// Cars that the seed picks: neighbours in the catalogue's order of elapsed times make a close race. With more lanes than cars some come twice.
pub(super) fn pick_cars(seed: u64, lanes: usize) -> Vec<String> {
    let mut cars: Vec<_> = drag_race::cars().iter().collect();
    let published_s = |car: &drag_race::Car| car.published.map_or(f64::INFINITY, |published| published.quarter_mile_s);
    cars.sort_by(|a, b| published_s(a).total_cmp(&published_s(b)));
    let starts = cars.len().saturating_sub(lanes) as u64 + 1;
    let first = usize::try_from(seed % starts).unwrap_or_default();
    cars.iter().cycle().skip(first).take(lanes).map(|car| car.id.to_string()).collect()
}

fn list_cars(json: bool) -> anyhow::Result<()> {
    let cars = drag_race::cars();
    if json {
        let cars: Vec<_> = cars.iter().map(|car| json!({ "id": car.id, "name": car.name, "year": car.year })).collect();
        say(serde_json::to_string(&cars).context("the catalogue cannot be written")?);
    } else {
        for car in cars {
            say(format_args!("{:<16} {} ({})", car.id, car.name, car.year));
        }
    }
    Ok(())
}
