//! Journals of real rooms: written while they run, replayed by the command, cut by kills and full disks, deleted when they are old. The format
//! itself is tested in `host/room`, the threads that write in `host/src/journal`.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use holeshot::api::Api;
use holeshot::bots::{self, Bot};
use holeshot::rules::{DRAG_RACE_WASM, ModuleHash};
use holeshot_wire::ClientMessage;
use serde_json::{Value, json};

use crate::command::{FREE_PORTS, LONG, Served, output, text};
use crate::harness::{Grant, Host, SOON, data_dir, eventually, run};
use crate::modules_made::{SHORT, Tally, short};
use crate::peer::Peer;

/// Runs `holeshot replay --json` and gives its exit code, its report and what it said on standard error.
async fn replay(args: &[&str]) -> (i32, Value, String) {
    let args: Vec<&str> = ["replay", "--json"].iter().chain(args).copied().collect();
    let output = output(&args).await;
    let (said, error) = (text(&output.stdout), text(&output.stderr));
    let report = if said.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&said).unwrap_or_else(|problem| panic!("{problem}: {said}"))
    };
    (output.status.code().unwrap_or_else(|| panic!("{args:?}: {error}")), report, error)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A race of two drivers from its opening to its results. `meanwhile` runs beside it.
pub(crate) async fn race(host: &Host, seed: u64, meanwhile: impl AsyncFnOnce(&str)) -> String {
    println!("seed {seed}");
    let api = Api::new(&host.server().url()).unwrap();
    let bot =
        |name: &str, car: &str, seed| Bot { name: name.into(), car: car.into(), skill: 0.8, seed, with_udp: true };
    let (ada, ben) = (bot("Ada", "gtr", seed), bot("Ben", "hellcat", seed + 1));
    let players = [&ada, &ben].map(|bot| json!({ "name": bot.name, "data": { "car": bot.car } }));
    let room = host.open_room(&json!({ "players": players, "options": { "tree": "pro" }, "seed": seed })).await;
    let (of_ada, of_ben, ()) =
        tokio::join!(bots::play(&api, &room, &ada, None), bots::play(&api, &room, &ben, None), meanwhile(&room));
    assert_eq!((of_ada.unwrap().ending, of_ben.unwrap().ending), ("finished".into(), "finished".into()));
    room
}

/// What the records say of a closed journal.
pub(crate) async fn closed_journal(host: &Host, room: &str) -> Value {
    host.recorded(room, "has a journal", |record| !record["journal"].is_null()).await["journal"].take()
}

pub(crate) async fn download(host: &Host, room: &str) -> Vec<u8> {
    let response = host.http().get(host.url(&format!("/api/rooms/{room}/journal"))).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let length = response.content_length().unwrap();
    let bytes = response.bytes().await.unwrap().to_vec();
    assert_eq!(bytes.len() as u64, length);
    bytes
}

/// The default game with gravity a little less, as a modder's other build: one constant of the module has another value.
fn lighter_cars() -> Vec<u8> {
    let constant = |value: f64| [&[0x44][..], &value.to_le_bytes()].concat();
    let (from, to) = (constant(drag_race::physics::GRAVITY_MPS2), constant(9.7));
    let places: Vec<usize> =
        (0..DRAG_RACE_WASM.len() - from.len()).filter(|at| DRAG_RACE_WASM[*at..].starts_with(&from)).collect();
    assert!(!places.is_empty(), "the module has no such constant any more");
    let mut wasm = DRAG_RACE_WASM.to_vec();
    for at in places {
        wasm[at..at + to.len()].copy_from_slice(&to);
    }
    wasm
}

#[test]
fn a_race_is_replayed_and_proven_while_it_runs_and_afterwards() {
    run(150, async {
        let elsewhere = tempfile::tempdir().unwrap();
        let host = Host::start_with(|settings| settings.linger_s = Some(1)).await;
        let live = elsewhere.path().join("live.journal");
        let room = race(&host, 5, async |room: &str| {
            // What is written of the running race, when there is some of it.
            let copied = eventually("frames are in the journal", SOON * 2, async || {
                let (_, body) = host.get(&format!("/api/rooms/{room}")).await;
                let written = body["journal"]["writing"]["frames"].as_u64().unwrap_or(0);
                if written >= 100 { Ok(body) } else { Err(body["journal"].to_string()) }
            });
            assert_eq!(copied.await["journal"]["writing"]["state"], "writing");
            std::fs::write(&live, download(&host, room).await).unwrap();
        })
        .await;
        let (code, report, error) = replay(&[path(&live)]).await;
        assert_eq!(code, 0, "{report:#} {error}");
        assert_eq!(
            (&report["verdict"], &report["journal"]["state"]),
            (&json!("proven"), &json!("cut_short")),
            "{report:#}"
        );
        assert!(report["frames"].as_u64().unwrap() >= 100, "{report:#}");

        let record = host.recorded(&room, "is closed", |record| !record["closed_at"].is_null()).await;
        let closed = closed_journal(&host, &room).await;
        assert_eq!((&closed["state"], &closed["frames"]), (&json!("whole"), &record["frames"]), "{closed}");
        let bytes = download(&host, &room).await;
        assert_eq!(closed["bytes"], json!(bytes.len()));
        println!("{} bytes for {} frames", bytes.len(), record["frames"]);
        let dir = host.stop().await;

        // By the room, by its beginning, and by a file that was copied elsewhere: the default rules are always known.
        let data_dir = path(dir.path());
        let copy = elsewhere.path().join("copy");
        std::fs::write(&copy, &bytes).unwrap();
        for args in
            [vec![room.as_str(), "--data-dir", data_dir], vec![&room[..30], "--data-dir", data_dir], vec![path(&copy)]]
        {
            let (code, report, error) = replay(&args).await;
            assert_eq!(code, 0, "{report:#} {error}");
            assert_eq!(
                (&report["verdict"], &report["journal"]["state"]),
                (&json!("proven"), &json!("whole")),
                "{report:#}"
            );
            assert_eq!((&report["room"], &report["frames"]), (&json!(room), &record["frames"]), "{report:#}");
            assert_eq!(report["modules"][0]["hash"], json!(ModuleHash::of(DRAG_RACE_WASM).to_string()), "{report:#}");
            assert!(report["states_checked"].as_u64().unwrap() > 10, "{report:#}");
        }
        // The results of the replay are those of the race.
        let (_, report, _) = replay(&[path(&copy)]).await;
        for result in record["results"].as_array().unwrap() {
            let same = |replayed: &&Value| replayed["player"] == result["player"] && replayed["data"] == result["data"];
            assert!(
                report["results"].as_array().unwrap().iter().any(|replayed| same(&replayed)),
                "{result} {report:#}"
            );
        }
        // For people.
        let output = output(&["replay", path(&copy)]).await;
        let said = text(&output.stdout);
        for words in ["proven", "times real time", "drag-race", "1/4 mile", room.as_str()] {
            assert!(said.contains(words), "no {words:?} in {said}");
        }
    });
}

#[test]
fn the_state_after_a_frame_is_shown() {
    run(150, async {
        let host = Host::start_with(|settings| settings.linger_s = Some(1)).await;
        let room = race(&host, 21, async |_: &str| {}).await;
        closed_journal(&host, &room).await;
        let dir = host.stop().await;
        let at = async |frame: &str| replay(&[&room, "--data-dir", path(dir.path()), "--at", frame]).await;
        let (code, first, error) = at("0").await;
        assert_eq!(code, 0, "{error}");
        let (_, later, _) = at("700").await;
        assert_eq!((&first["frame"], &later["frame"]), (&json!(0), &json!(700)));
        assert!(first["state"].is_object() && first["state"] != later["state"], "{first:#}");
        assert_eq!(at("700").await.1, later);
        let (code, nothing, error) = at("1000000").await;
        assert_eq!((code, nothing), (1, Value::Null));
        assert!(error.contains("1000000") && error.contains("last frame"), "{error}");
    });
}

/// CRC-32 as in zlib, bit by bit.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// Where the bodies of the blocks are.
fn blocks(journal: &[u8]) -> Vec<Range<usize>> {
    let (mut at, mut blocks) = (8, Vec::new());
    while at < journal.len() {
        let len = u32::from_le_bytes(journal[at..at + 4].try_into().unwrap()) as usize;
        blocks.push(at + 8..at + 8 + len);
        at += 8 + len;
    }
    blocks
}

#[test]
fn a_changed_journal_is_found_out() {
    run(150, async {
        let host = Host::start_with(|settings| settings.linger_s = Some(1)).await;
        let room = race(&host, 8, async |_: &str| {}).await;
        let frames = closed_journal(&host, &room).await["frames"].as_u64().unwrap();
        let bytes = download(&host, &room).await;
        host.stop().await;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("changed");
        // A flipped bit in a block: what is before it is proven, and the rest is said to be damaged.
        let blocks = blocks(&bytes);
        for block in [blocks.len() / 3, blocks.len() / 2, blocks.len() - 1] {
            let mut changed = bytes.clone();
            let body = blocks[block].clone();
            changed[(body.start + body.end) / 2] ^= 0x10;
            std::fs::write(&file, &changed).unwrap();
            let (code, report, error) = replay(&[path(&file)]).await;
            assert_eq!((code, &report["journal"]["state"]), (1, &json!("damaged")), "{report:#} {error}");
            assert!(error.contains(&format!("damaged at byte {}", body.start - 8)), "{error}");
        }
        // Zeros, as a power cut leaves them: not damaged, only short.
        let mut zeros = bytes[..blocks[blocks.len() / 2].end].to_vec();
        zeros.resize(bytes.len(), 0);
        std::fs::write(&file, &zeros).unwrap();
        let (code, report, error) = replay(&[path(&file)]).await;
        assert_eq!((code, &report["journal"]["state"]), (0, &json!("cut_short")), "{report:#} {error}");
        // A forged one, whose blocks all fit: the first byte of the seed is another one, and so the race is.
        let header = blocks[0].clone();
        let seed_at = header.start + 1 + 1 + room.len() + 8 + 1;
        let mut forged = bytes.clone();
        assert_eq!(forged[seed_at..seed_at + 8], 8u64.to_le_bytes(), "the place of the seed");
        forged[seed_at] ^= 1;
        let crc = crc32(&forged[header.clone()]).to_le_bytes();
        forged[header.start - 4..header.start].copy_from_slice(&crc);
        std::fs::write(&file, &forged).unwrap();
        let (code, report, error) = replay(&[path(&file)]).await;
        assert_eq!((code, &report["verdict"]), (1, &json!("differs")), "{report:#} {error}");
        println!("{error}");
        let told = &report["difference"];
        assert!(!told["fields"].as_array().unwrap().is_empty(), "{told:#}");
        let field = told["fields"][0]["path"].as_str().unwrap();
        assert!(error.contains(field) && error.contains("on record -> replayed"), "{error}");
        // Cut anywhere: it reads up to its last whole block.
        let mut last = u64::MAX;
        for at in [bytes.len() - 1, bytes.len() * 2 / 3, bytes.len() / 4] {
            std::fs::write(&file, &bytes[..at]).unwrap();
            let (code, report, error) = replay(&[path(&file)]).await;
            assert_eq!(code, 0, "{at} bytes: {report:#} {error}");
            assert_eq!(report["journal"]["state"], "cut_short");
            let read = report["frames"].as_u64().unwrap();
            assert!(read < last && read <= frames, "{read} of {frames}");
            last = read;
        }
        std::fs::write(&file, &bytes[..10]).unwrap();
        let (code, _, error) = replay(&[path(&file)]).await;
        assert_eq!(code, 1);
        assert!(error.contains(path(&file)) && error.contains("header"), "{error}");
    });
}

#[test]
fn the_same_inputs_under_other_rules_show_what_would_have_changed() {
    run(150, async {
        let host = Host::start_with(|settings| settings.linger_s = Some(1)).await;
        let room = race(&host, 13, async |_: &str| {}).await;
        closed_journal(&host, &room).await;
        let dir = host.stop().await;
        let other = dir.path().join("lighter.wasm");
        std::fs::write(&other, lighter_cars()).unwrap();
        let args = [room.as_str(), "--data-dir", path(dir.path()), "--module"];
        let (code, report, error) = replay(&[&args[..], &[path(&other)]].concat()).await;
        assert_eq!(code, 1, "{report:#} {error}");
        assert_eq!(report["other"]["module"]["hash"], json!(ModuleHash::of(&lighter_cars()).to_string()));
        let first = report["first_difference"]["frame"].as_u64().unwrap();
        assert!(first < report["recorded"]["frames"].as_u64().unwrap(), "{report:#}");
        assert!(!report["first_difference"]["fields"].as_array().unwrap().is_empty(), "{report:#}");
        let changed: Vec<&str> =
            report["results_changed"].as_array().unwrap().iter().filter_map(|field| field["path"].as_str()).collect();
        assert!(changed.iter().any(|path| path.ends_with("quarter_mile_s")), "{changed:?}");
        let output = output(&[&["replay"], &args[..], &[path(&other)]].concat()).await;
        let (said, error) = (text(&output.stdout), text(&output.stderr));
        assert!(said.contains("1/4 mile") && said.contains(" -> "), "{said}");
        assert!(error.contains(&format!("frame {first} is the first whose output differs")), "{error}");

        // The same rules: nothing.
        let same = dir.path().join("same.wasm");
        std::fs::write(&same, DRAG_RACE_WASM).unwrap();
        let (code, report, error) = replay(&[&args[..], &[path(&same)]].concat()).await;
        assert_eq!(code, 0, "{report:#} {error}");
        assert_eq!((&report["first_difference"], &report["results_changed"]), (&Value::Null, &json!([])));
        // What is no module is refused in words.
        std::fs::write(&same, "no module").unwrap();
        let (code, _, error) = replay(&[&args[..], &[path(&same)]].concat()).await;
        assert_eq!(code, 1);
        assert!(error.contains("same.wasm") && error.contains("not a WebAssembly module"), "{error}");
    });
}

#[test]
fn rules_that_were_swapped_and_undone_are_replayed_as_it_counted() {
    run(150, async {
        let name = "tally-journal";
        let game = || Tally::new(name, 1_000);
        let host = Host::start_with_modules(&[game().wasm()], |settings| {
            settings.linger_s = Some(0);
            settings.probation_frames = Some(120);
        })
        .await;
        // The same game, told apart by code that does nothing; it is kept.
        let good = game().at_frame(0, "(drop (i32.const 7))").wasm();
        // One whose instance traps in its 101st tick: longer than a trial, shorter than the probation, however late it takes over. It is undone.
        let bad = game().after_ticks(100, "(unreachable)").wasm();
        // Compiled beforehand: a busy machine would take as long for it as the game lasts.
        for wasm in [&good, &bad, &game().wasm()] {
            let (status, report) = host.put_module(name, "new", wasm.clone()).await;
            assert_eq!(status, 200, "{report}");
        }
        let room = host.open(name, &["Ada"]).await;
        let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
        ada.ready().await;
        ada.frame(20).await;
        let (status, report) = host.put_module(name, &room, good.clone()).await;
        assert_eq!(status, 200, "{report}");
        let swapped = ada.event("rules_swapped").await;
        ada.frame(swapped.data["frame"].as_u64().unwrap() as u32 + 130).await;
        let (status, report) = host.put_module(name, &room, bad.clone()).await;
        assert_eq!(status, 200, "{report}");
        let failing = ada.event("rules_rolled_back").await.data["frame"].clone();
        ada.event("finished").await;
        assert_eq!(closed_journal(&host, &room).await["state"], "whole");
        let dir = host.stop().await;

        let (code, report, error) = replay(&[&room, "--data-dir", path(dir.path())]).await;
        assert_eq!(
            (code, &report["verdict"], &report["frames"]),
            (0, &json!("proven"), &json!(1_000)),
            "{report:#} {error}"
        );
        let hash = |wasm: &[u8]| json!(ModuleHash::of(wasm).to_string());
        let modules = report["modules"].as_array().unwrap();
        assert_eq!(modules.len(), 2, "{report:#}");
        assert_eq!((&modules[0]["hash"], &modules[1]["hash"]), (&hash(&game().wasm()), &hash(&good)));
        assert_eq!(modules[1]["from_frame"], swapped.data["frame"]);
        let undone = &report["rollbacks"][0];
        assert_eq!((&undone["failed"], &undone["frame"], &undone["fault"]), (&hash(&bad), &failing, &json!("trap")));
        // Tally does not describe its state: its bytes are shown.
        let (code, state, error) = replay(&[&room, "--data-dir", path(dir.path()), "--at", "900"]).await;
        assert_eq!((code, &state["module"]), (0, &hash(&good)), "{error}");
        assert!(state["state"].is_null() && state["state_hex"].as_str().is_some_and(|hex| hex.len() >= 8), "{state:#}");
        // People read of both.
        let said = text(&output(&["replay", &room, "--data-dir", path(dir.path())]).await.stdout);
        assert!(said.contains("undone: trap in frame") && said.contains("proven"), "{said}");
    });
}

fn journal_of(dir: &Path, room: &str) -> PathBuf {
    dir.join("journals").join(format!("{room}.journal"))
}

#[test]
fn a_killed_host_leaves_a_journal_that_reads_up_to_its_last_whole_block() {
    run(90, async {
        let dir = data_dir();
        let mut served = Served::start_with_games(dir.path(), &[]).await;
        let (room, mut ada) = served.playing(LONG).await;
        ada.frame(130).await;
        served.child.kill().await.unwrap();
        drop(served);

        let (code, report, error) =
            replay(&[&room, "--data-dir", path(dir.path()), "--modules", path(dir.path())]).await;
        assert_eq!(code, 0, "{report:#} {error}");
        assert_eq!(
            (&report["verdict"], &report["journal"]["state"]),
            (&json!("proven"), &json!("cut_short")),
            "{report:#}"
        );
        let frames = report["frames"].as_u64().unwrap();
        assert!(frames >= 100, "{report:#}");
        assert!(journal_of(dir.path(), &room).is_file());

        let served = Served::start_with_games(dir.path(), &[]).await;
        let api_path = format!("/api/rooms/{room}");
        let body = eventually("the journal is closed", SOON, async || {
            let body = served.request(&api_path, None).await;
            if body["recorded"]["journal"].is_null() { Err(body.to_string()) } else { Ok(body) }
        })
        .await;
        let journal = &body["recorded"]["journal"];
        assert_eq!((&journal["state"], &journal["frames"]), (&json!("cut_short"), &json!(frames)), "{body:#}");
        assert!(body["journal"]["bytes"] == journal["bytes"] && body["journal"]["writing"].is_null(), "{body:#}");
        assert!(!journal_of(dir.path(), &room).exists());
        let (code, again, error) =
            replay(&[&room, "--data-dir", path(dir.path()), "--modules", path(dir.path())]).await;
        assert_eq!((code, &again["frames"]), (0, &report["frames"]), "{error}");
        served.signal(libc::SIGTERM);
        assert_eq!(served.end().await.0, Some(0));
    });
}

#[test]
fn a_missing_module_is_named_with_the_file_that_would_help() {
    run(60, async {
        let dir = data_dir();
        let served = Served::start_with_games(dir.path(), &[]).await;
        let (room, mut ada) = served.playing(SHORT).await;
        ada.event("finished").await;
        let api_path = format!("/api/rooms/{room}/journal");
        let bytes = eventually("the journal is closed", SOON, async || {
            let (_, body) = (0, served.request(&format!("/api/rooms/{room}"), None).await);
            if body["recorded"]["journal"].is_null() { Err(body.to_string()) } else { Ok(body) }
        })
        .await;
        assert_eq!(bytes["journal"]["path"], json!(api_path));
        served.signal(libc::SIGTERM);
        assert_eq!(served.end().await.0, Some(0));

        let elsewhere = tempfile::tempdir().unwrap();
        let copy = elsewhere.path().join("copy.journal");
        std::fs::copy(dir.path().join("journals/closed").join(format!("{room}.journal")), &copy).unwrap();
        let empty = elsewhere.path().join("empty");
        let hash = ModuleHash::of(&short()).to_string();
        let (code, _, error) = replay(&[path(&copy), "--data-dir", path(&empty)]).await;
        assert_eq!(code, 1);
        assert!(
            error.contains(&hash) && error.contains(&format!("{hash}.wasm")) && error.contains("--modules"),
            "{error}"
        );
        // By its hash, whatever the file is called.
        std::fs::write(elsewhere.path().join("any name.wasm"), short()).unwrap();
        let (code, report, error) =
            replay(&[path(&copy), "--data-dir", path(&empty), "--modules", path(elsewhere.path())]).await;
        assert_eq!((code, &report["verdict"]), (0, &json!("proven")), "{error}");
        // Unknown rooms are refused with those that there are.
        let (code, _, error) = replay(&["nobody", "--data-dir", path(dir.path())]).await;
        assert_eq!(code, 1);
        assert!(error.contains(&room) && error.contains("nobody"), "{error}");
    });
}

#[test]
fn a_full_disk_ends_the_journal_and_not_the_race() {
    /// The longest file of the host, in bytes. Its database stays far below.
    const FILE_BYTES_MAX: usize = 2 << 20;
    run(120, async {
        let dir = data_dir();
        let game = dir.path().join("long.wasm");
        std::fs::write(&game, Tally::new(LONG, 1_000).wasm()).unwrap();
        // A shell sets the limit, and that exceeding it is an error of the write and not a signal.
        let mut command = tokio::process::Command::new("sh");
        let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", FILE_BYTES_MAX / 512);
        command.args(["-c", &script, env!("CARGO_BIN_EXE_holeshot-under-test"), "serve", "--json"]);
        command.args(["--data-dir", path(dir.path()), "--rooms-max", "16", "--linger-s", "1"]).args(FREE_PORTS);
        command.args(["--module", path(&game)]);
        // Nobody honest says as much as fills this file.
        command.args(["--limit", "session_bytes_per_s=10000000", "--limit", "session_messages_per_s=10000"]);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped()).kill_on_drop(true);
        let served = Served::started(command).await;
        let (room, mut ada) = served.playing(LONG).await;
        let (other, mut ben) = served.playing(LONG).await;
        // Actions of nearly a KiB, as many as a room takes, fill the one journal; the other one stays small.
        let fill = "x".repeat(900);
        let mut sent = 0;
        let frames = async {
            while ada.events.iter().all(|event| event.name != "finished") {
                if sent < 4 * FILE_BYTES_MAX / fill.len() {
                    for _ in 0..8 {
                        sent += 1;
                        ada.say(&ClientMessage::Action { id: sent as u64, data: json!(fill) }).await;
                    }
                }
                let next = ada.snapshot_frames.last().map_or(0, |frame| frame + 1);
                if next >= 995 {
                    break;
                }
                ada.frame(next).await;
            }
            ada.event("finished").await
        };
        let (finished, ()) = tokio::join!(frames, async {
            ben.event("finished").await;
        });
        assert_eq!(finished.data["frames"], 1_000, "the race went on to its end");
        println!("{sent} actions");
        let journal = async |room: &str| {
            eventually("the journal is closed", SOON, async || {
                let body = served.request(&format!("/api/rooms/{room}"), None).await;
                if body["recorded"]["journal"].is_null() {
                    Err(body.to_string())
                } else {
                    Ok(body["recorded"]["journal"].clone())
                }
            })
            .await
        };
        let (full, small) = (journal(&room).await, journal(&other).await);
        assert_eq!((&full["state"], &small["state"]), (&json!("incomplete"), &json!("whole")), "{full} {small}");
        assert!(full["problem"].as_str().unwrap().contains("the disk does not take it"), "{full}");
        assert!(full["bytes"].as_u64().unwrap() <= FILE_BYTES_MAX as u64, "{full}");
        served.signal(libc::SIGTERM);
        let (code, _, error) = served.end().await;
        assert_eq!(code, Some(0), "{error}");
        let lines: Vec<&str> = error.lines().filter(|line| line.contains("a journal is incomplete")).collect();
        assert!(lines.len() == 1 && lines[0].contains(&room), "{error}");
        // What fitted is a journal that reads.
        let (code, report, error) =
            replay(&[&room, "--data-dir", path(dir.path()), "--modules", path(dir.path())]).await;
        assert_eq!((code, &report["frames"]), (0, &full["frames"]), "{report:#} {error}");
        assert!(report["frames"].as_u64().unwrap() > 0);
    });
}

#[test]
fn old_journals_are_deleted_and_their_rooms_stay_on_record() {
    run(60, async {
        let host = Host::start_with_modules(&[short()], |settings| settings.linger_s = Some(0)).await;
        let mut rooms = Vec::new();
        for _ in 0..2 {
            let room = host.open(SHORT, &["Ada"]).await;
            let grant: Grant = host.join(&room, "Ada").await;
            let mut ada = Peer::enter(&grant).await;
            ada.ready().await;
            ada.event("finished").await;
            closed_journal(&host, &room).await;
            rooms.push(room);
        }
        let dir = host.stop().await;
        let file = |room: &str| dir.path().join("journals/closed").join(format!("{room}.journal"));
        let days = |days: u32| SystemTime::now() - Duration::from_secs(86_400) * days;
        let old = std::fs::OpenOptions::new().write(true).open(file(&rooms[0])).unwrap();
        old.set_modified(days(3)).unwrap();
        let (first, second) = (file(&rooms[0]), file(&rooms[1]));
        let host = Host::start_in(dir, |settings| settings.journal_days = Some(2)).await;
        eventually("the old journal is gone", SOON, async || if first.exists() { Err(String::new()) } else { Ok(()) })
            .await;
        assert!(second.exists());
        let (status, body) = host.get(&format!("/api/rooms/{}", rooms[0])).await;
        assert_eq!((status, &body["journal"]), (200, &Value::Null));
        assert_eq!(body["recorded"]["journal"]["state"], "whole", "{body:#}");
        let (status, body) = host.get(&format!("/api/rooms/{}/journal", rooms[0])).await;
        assert_eq!((status, &body["error"]["code"]), (404, &json!("no_journal")), "{body}");
        let dir = host.stop().await;
        // A host that keeps none deletes the rest, and writes no more.
        let host = Host::start_in(dir, |settings| settings.journal_days = Some(0)).await;
        eventually("no journal is left", SOON, async || if second.exists() { Err(String::new()) } else { Ok(()) })
            .await;
        let (_, body) = host.get(&format!("/api/rooms/{}/journal", rooms[1])).await;
        assert!(body["error"]["message"].as_str().unwrap().contains("journal_days is 0"), "{body}");
        host.stop().await;
    });
}
