//! Changing the rules of a running host through its doors: the request, who may make it, what each kind of rooms gets, the watched file, the
//! command, and what is remembered. Which misbehaviour of a module is refused or rolled back, and that nothing of a race is
//! lost over many swaps, is covered in `rollback.rs`, `undo.rs` and `host/room/tests`.

use std::path::Path;
use std::time::Duration;

use holeshot::api::Api;
use holeshot::bots::{self, Bot};
use holeshot::rules::{DRAG_RACE_WASM, ModuleHash};
use serde_json::{Value, json};

use crate::command::holeshot;
use crate::harness::{Host, SOON, data_dir, eventually, lines_of, run};
use crate::modules_made::{SHORT, Tally, short};
use crate::peer::{Peer, serves_a_game};

/// The game of these tests: ten seconds of tallies, so that a busy machine comes to the end of each test before the game does.
const GAME: &str = "tally-swap";
const FRAMES: u32 = 500;

fn game() -> Tally {
    Tally::new(GAME, FRAMES)
}

/// The same rules under another hash: a custom section more, which says nothing to the machine.
fn other_build(wasm: &[u8], name: &str) -> Vec<u8> {
    let mut bytes = wasm.to_vec();
    bytes.extend([0, u8::try_from(1 + name.len()).unwrap(), u8::try_from(name.len()).unwrap()]);
    bytes.extend(name.as_bytes());
    bytes
}

fn hash(wasm: &[u8]) -> String {
    ModuleHash::of(wasm).to_string()
}

/// A room whose game runs, with its one player.
async fn playing(host: &Host) -> (String, Peer) {
    let room = host.open(GAME, &["Ada"]).await;
    let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
    ada.ready().await;
    ada.frame(5).await;
    (room, ada)
}

/// The hash of the rules that an open room has.
async fn rules_of(host: &Host, room: &str) -> String {
    let (_, body) = host.get(&format!("/api/rooms/{room}")).await;
    body["open"]["module"]["hash"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

/// What new rooms of a name get.
async fn loaded(host: &Host, name: &str) -> Value {
    let (status, body) = host.get("/api/modules").await;
    assert_eq!(status, 200, "{body}");
    let loaded = body["loaded"].as_array().unwrap();
    loaded.iter().find(|module| module["name"] == name).unwrap_or_else(|| panic!("no {name}: {body}")).clone()
}

/// The verdict of the one room that a report has.
fn only(report: &Value) -> &Value {
    let rooms = report["rooms"].as_array().unwrap_or_else(|| panic!("{report}"));
    assert_eq!(rooms.len(), 1, "{report}");
    &rooms[0]
}

/// The game goes to its end, with every frame seen once and with results.
async fn finishes(ada: &mut Peer) {
    let finished = ada.event("finished").await;
    assert_eq!(finished.data["frames"], FRAMES, "{}", finished.data);
    assert_eq!(finished.data["results"][0]["outcome"], "counted", "{}", finished.data);
    let first = ada.snapshot_frames[0];
    assert_eq!(ada.snapshot_frames, (first..FRAMES).collect::<Vec<_>>(), "a snapshot is missing or there twice");
    let seqs: Vec<u64> = ada.events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_request_that_may_or_can_not_change_rules_is_refused_with_the_reason() {
    run(60, async {
        let host = Host::start_with_modules(&[game().wasm(), short()], |_| {}).await;
        let (room, mut ada) = playing(&host).await;
        let before = loaded(&host, GAME).await;

        // Who does not show the token is told so, also after a module of full length; and nothing of it is kept.
        let path = format!("/api/modules/{GAME}?rooms=all");
        let good = other_build(&game().wasm(), "good");
        for (token, body) in [
            (None, good.clone()),
            (Some("wrong"), good.clone()),
            (Some("wrong"), vec![0; holeshot::rules::MODULE_BYTES_MAX]),
        ] {
            let mut request = host.http().put(host.url(&path)).body(body);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 401);
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["error"]["code"], "unauthorized");
            assert!(body["error"]["message"].as_str().unwrap().contains("admin-token"), "{body}");
        }

        let faster = Tally { manifest: ",\"tick_hz\":100".into(), ..game() }.wasm();
        let failing = wat::parse_str(include_str!("../modules/tally.wat").replace(
            "(func (export \"holeshot_abi_version\") (result i32)",
            "(func (export \"holeshot_abi_version\") (result i32) unreachable",
        ))
        .unwrap();
        let long = vec![0; holeshot::rules::MODULE_BYTES_MAX + 1];
        for (name, rooms, wasm, status, code, words) in [
            (GAME, "all", b"not wasm".to_vec(), 422, "bad_module", "WebAssembly"),
            (GAME, "all", Vec::new(), 422, "bad_module", "empty"),
            (GAME, "all", good[..good.len() / 2].to_vec(), 422, "bad_module", "not valid"),
            (GAME, "all", failing, 422, "bad_module", "unreachable"),
            (GAME, "all", long, 413, "too_large", "bytes"),
            (SHORT, "all", good.clone(), 422, "wrong_name", GAME),
            ("tally%ff", "all", good.clone(), 400, "bad_request", ""),
            (GAME, "all&more=1", good.clone(), 400, "bad_request", "more"),
            (GAME, "none-such", good.clone(), 404, "unknown_room", "none-such"),
            (SHORT, room.as_str(), other_build(&short(), "x"), 409, "other_game", GAME),
            (GAME, room.as_str(), faster.clone(), 409, "swap_refused", "tick_hz"),
        ] {
            let (found, body) = host.put_module(name, rooms, wasm).await;
            let error = &body["error"];
            assert_eq!((found, error["code"].as_str()), (status, Some(code)), "{body}");
            assert!(error["message"].as_str().unwrap().contains(words), "no {words:?}: {body}");
            if code == "swap_refused" {
                assert_eq!(only(&error["details"])["kind"], "incompatible", "{body}");
            }
            if words == "unreachable" {
                assert_eq!(error["details"]["kind"], "trap", "{body}");
                assert!(error["details"]["backtrace"].as_str().unwrap().contains("wasm function"), "{body}");
            }
        }
        assert_eq!(loaded(&host, GAME).await, before);
        assert_eq!(rules_of(&host, &room).await, hash(&game().wasm()));

        // What no running room can take may be just right for new ones.
        let (status, report) = host.put_module(GAME, "all", faster.clone()).await;
        assert_eq!((status, &report["new_rooms"], &report["skipped"]), (200, &json!("set"), &json!(1)), "{report}");
        assert_eq!(only(&report)["kind"], "incompatible", "{report}");
        assert_eq!(loaded(&host, GAME).await["hash"], hash(&faster));
        assert!(!ada.names().contains(&"rules_swapped"));
        finishes(&mut ada).await;
        serves_a_game(&host).await;
        host.stop().await;
    });
}

#[test]
fn one_room_new_rooms_or_all_rooms_get_the_rules_and_players_go_on() {
    run(60, async {
        let [first, second, third, fourth] = ["1", "2", "3", "4"].map(|name| other_build(&game().wasm(), name));
        let host =
            Host::start_with_modules(std::slice::from_ref(&first), |settings| settings.probation_frames = Some(20))
                .await;
        let (one, mut ada) = playing(&host).await;
        let (two, mut ben) = playing(&host).await;

        // One room.
        let (status, report) = host.put_module(GAME, &one, second.clone()).await;
        assert_eq!((status, &report["new_rooms"]), (200, &json!("not_asked")), "{report}");
        let verdict = only(&report);
        assert_eq!((&verdict["room"], &verdict["verdict"]), (&json!(one), &json!("swapped")), "{report}");
        assert!(
            verdict["trial_us"].is_u64() && verdict["pause_us"].is_u64() && report["compile_ms"].is_f64(),
            "{report}"
        );
        let told = ada.event("rules_swapped").await;
        assert_eq!(told.data["frame"], verdict["frame"]);
        assert_eq!(
            (&told.data["module"]["hash"], &told.data["from"]["hash"]),
            (&json!(hash(&second)), &json!(hash(&first)))
        );
        assert_eq!((rules_of(&host, &one).await, rules_of(&host, &two).await), (hash(&second), hash(&first)));
        assert_eq!(loaded(&host, GAME).await["hash"], hash(&first));
        // The same again changes nothing.
        assert_eq!(only(&host.put_module(GAME, &one, second.clone()).await.1)["verdict"], "unchanged");

        // New rooms.
        let (status, report) = host.put_module(GAME, "new", third.clone()).await;
        assert_eq!((status, &report["new_rooms"], &report["rooms"]), (200, &json!("set"), &json!([])), "{report}");
        let new = host.open(GAME, &["Cleo"]).await;
        let rules = [rules_of(&host, &one).await, rules_of(&host, &two).await, rules_of(&host, &new).await];
        assert_eq!(rules, [hash(&second), hash(&first), hash(&third)]);

        // All of them: also the one that is on probation still, and the one that waits for its player.
        let (status, report) = host.put_module(GAME, "all", fourth.clone()).await;
        assert_eq!((status, &report["swapped"], &report["new_rooms"]), (200, &json!(3), &json!("set")), "{report}");
        for room in [&one, &two, &new] {
            assert_eq!(rules_of(&host, room).await, hash(&fourth));
        }
        let current = loaded(&host, GAME).await;
        assert_eq!((&current["hash"], &current["source"]), (&json!(hash(&fourth)), &json!("set")));
        let (_, modules) = host.get("/api/modules").await;
        let kept: Vec<&str> =
            modules["kept"].as_array().unwrap().iter().map(|kept| kept["hash"].as_str().unwrap()).collect();
        for wasm in [&first, &second, &third, &fourth] {
            assert!(kept.contains(&hash(wasm).as_str()), "{modules}");
        }

        // Two at the same moment take turns: the second waits for the probation of the first.
        let [fifth, sixth] = ["5", "6"].map(|name| other_build(&game().wasm(), name));
        let (a, b) =
            tokio::join!(host.put_module(GAME, &one, fifth.clone()), host.put_module(GAME, &one, sixth.clone()));
        for (status, report) in [a, b] {
            assert_eq!((status, &only(&report)["verdict"]), (200, &json!("swapped")), "{report}");
        }
        let now = rules_of(&host, &one).await;
        assert!(now == hash(&fifth) || now == hash(&sixth), "{now}");

        // Who comes later is welcomed by the rules that are in force.
        let mut cleo = Peer::enter(&host.join(&new, "Cleo").await).await;
        assert_eq!(cleo.welcome().rules.hash, hash(&fourth));
        cleo.ready().await;
        for player in [&mut ada, &mut ben, &mut cleo] {
            finishes(player).await;
        }
        let record = host.recorded(&one, "has its swaps", |record| record["swaps"][3]["outcome"] == "kept").await;
        let swaps: Vec<_> =
            record["swaps"].as_array().unwrap().iter().map(|swap| (&swap["outcome"], &swap["to_hash"])).collect();
        assert_eq!(swaps[..2], [(&json!("kept"), &json!(hash(&second))), (&json!("kept"), &json!(hash(&fourth)))]);
        assert_eq!(swaps.len(), 4, "{swaps:?}");
        assert_eq!(record["module_hash"], hash(&first), "the rules that it was opened with");
        host.stop().await;
    });
}

#[test]
fn rules_that_fail_their_trial_never_run_and_are_tried_again_only_if_the_room_is_named() {
    run(60, async {
        let host = Host::start_with_modules(&[game().wasm()], |_| {}).await;
        let (room, mut ada) = playing(&host).await;
        let bad = Tally { each_tick: "(unreachable)".into(), ..game() }.wasm();
        let (status, report) = host.put_module(GAME, "all", bad.clone()).await;
        assert_eq!(
            (status, &report["refused"], &report["new_rooms"]),
            (200, &json!(1), &json!("kept_back")),
            "{report}"
        );
        let verdict = only(&report);
        assert_eq!((&verdict["kind"], &verdict["rules_failed"]), (&json!("trap"), &json!(true)), "{report}");
        assert!(verdict["frame"].is_u64() && verdict["message"].as_str().unwrap().contains("unreachable"), "{report}");
        assert!(verdict["backtrace"].as_str().unwrap().contains("wasm function"), "{report}");
        assert_eq!(loaded(&host, GAME).await["hash"], hash(&game().wasm()), "new rooms do not get what fails");
        let warned = lines_of(&room);
        assert!(
            warned.iter().any(|(_, line)| line.contains("keeps the rules it has") && line.contains("unreachable")),
            "{warned:?}"
        );

        // By itself it is not tried again; by name it is.
        let (_, report) = host.put_module(GAME, "all", bad.clone()).await;
        assert_eq!((&report["skipped"], &report["new_rooms"]), (&json!(1), &json!("kept_back")), "{report}");
        assert_eq!(only(&report)["kind"], "trap");
        let (status, body) = host.put_module(GAME, &room, bad.clone()).await;
        assert_eq!((status, &body["error"]["code"]), (409, &json!("swap_refused")), "{body}");
        let message = body["error"]["message"].as_str().unwrap();
        for word in [room.as_str(), "trap", "in frame", "unreachable", "wasm function"] {
            assert!(message.contains(word), "no {word:?} in {message}");
        }
        let (_, body) = host.get(&format!("/api/rooms/{room}")).await;
        assert_eq!(body["open"]["failed_modules"][0]["hash"], hash(&bad), "{body}");
        assert!(!ada.names().contains(&"rules_swapped"));
        finishes(&mut ada).await;

        let record = host
            .recorded(&room, "has both refusals", |record| record["swaps"].as_array().is_some_and(|s| s.len() == 2))
            .await;
        let swap = &record["swaps"][0];
        assert_eq!((&swap["outcome"], &swap["to_hash"]), (&json!("refused"), &json!(hash(&bad))), "{swap}");
        assert_eq!((&swap["from_hash"], &swap["reason"]), (&json!(hash(&game().wasm())), &json!("trap")), "{swap}");
        assert!(
            swap["failing_frame"].is_u64() && swap["backtrace"].as_str().unwrap().contains("wasm function"),
            "{swap}"
        );
        let told =
            record["events"].as_array().unwrap().iter().filter(|event| event["kind"] == "module.swap_refused").count();
        assert_eq!(told, 2);
        host.stop().await;
    });
}

#[test]
fn rules_that_fail_on_probation_are_undone_and_on_record() {
    run(60, async {
        let host = Host::start_with_modules(&[game().wasm()], |_| {}).await;
        let (room, mut ada) = playing(&host).await;
        // Beyond the trial, within the probation.
        let bad = game().after_ticks(100, "(unreachable)").wasm();
        let (status, report) = host.put_module(GAME, "all", bad.clone()).await;
        assert_eq!((status, &only(&report)["verdict"]), (200, &json!("swapped")), "{report}");
        let (_, body) = host.get(&format!("/api/rooms/{room}")).await;
        assert_eq!(body["open"]["on_probation"], true, "{body}");
        let undone = ada.event("rules_rolled_back").await;
        let failing = undone.data["since_frame"].as_u64().unwrap() + 100;
        assert_eq!(
            (&undone.data["frame"], &undone.data["reason"]),
            (&json!(failing), &json!("trap")),
            "{}",
            undone.data
        );
        assert_eq!(rules_of(&host, &room).await, hash(&game().wasm()));
        // It failed in every room, so new rooms do not get it either.
        let back = eventually("the former rules are back", SOON, async || {
            let back = loaded(&host, GAME).await;
            if back["hash"] == hash(&game().wasm()).as_str() { Ok(back) } else { Err(back.to_string()) }
        });
        assert_eq!(back.await["source"], "flag");
        let remembered = std::fs::read_to_string(host.dir.path().join("modules.json")).unwrap();
        assert!(!remembered.contains(&hash(&bad)), "{remembered}");
        let (_, report) = host.put_module(GAME, "all", bad.clone()).await;
        assert_eq!(only(&report)["verdict"], "skipped", "{report}");
        let warned = lines_of(&room);
        assert!(warned.iter().any(|(_, line)| line.contains("failed on probation")), "{warned:?}");
        finishes(&mut ada).await;
        let record =
            host.recorded(&room, "has its swap", |record| record["swaps"][0]["outcome"] == "rolled_back").await;
        let swap = &record["swaps"][0];
        assert_eq!((&swap["frame"], &swap["failing_frame"]), (&undone.data["since_frame"], &json!(failing)), "{swap}");
        assert_eq!(
            (&swap["from_hash"], &swap["to_hash"]),
            (&json!(hash(&game().wasm())), &json!(hash(&bad))),
            "{swap}"
        );
        host.stop().await;
    });
}

#[test]
fn rules_that_fail_in_one_room_and_pass_in_another_stay_and_the_list_of_modules_says_so() {
    run(90, async {
        let host = Host::start_with_modules(&[game().wasm()], |_| {}).await;
        let (passing, mut alone) = playing(&host).await;
        let failing = host.open(GAME, &["Ada", "Ben"]).await;
        let mut ada = Peer::enter(&host.join(&failing, "Ada").await).await;
        let mut ben = Peer::enter(&host.join(&failing, "Ben").await).await;
        ada.ready().await;
        ben.ready().await;
        ada.frame(5).await;
        // Beyond the trial, within the probation, where two play.
        let bad =
            game().after_ticks(100, "(if (i32.eq (global.get $players) (i32.const 2)) (then (unreachable)))").wasm();
        let (status, report) = host.put_module(GAME, "all", bad.clone()).await;
        assert_eq!((status, &report["swapped"]), (200, &json!(2)), "{report}");
        ada.event("rules_rolled_back").await;
        eventually("the other room keeps them", SOON, async || {
            let (_, body) = host.get(&format!("/api/rooms/{passing}")).await;
            if body["open"]["on_probation"] == false { Ok(()) } else { Err(body.to_string()) }
        })
        .await;
        assert_eq!(rules_of(&host, &passing).await, hash(&bad));
        assert_eq!(rules_of(&host, &failing).await, hash(&game().wasm()));
        let named = loaded(&host, GAME).await;
        assert_eq!((&named["hash"], &named["failed_rooms"]), (&json!(hash(&bad)), &json!(1)), "{named}");
        alone.frame(150).await;
        assert!(!alone.names().contains(&"rules_rolled_back"), "{:?}", alone.names());
        host.stop().await;
    });
}

#[test]
fn two_changes_at_once_leave_a_full_host_with_the_rules_of_one_in_every_room() {
    const ROOMS: usize = 8;
    run(90, async {
        let full = |settings: &mut holeshot::config::Settings| settings.rooms_max = Some(ROOMS as u32);
        let host = Host::start_with_modules(&[game().wasm()], full).await;
        let mut rooms = Vec::new();
        for _ in 0..ROOMS {
            rooms.push(host.open(GAME, &["Ada"]).await);
        }
        let builds = ["one", "two"].map(|name| other_build(&game().wasm(), name));
        let (one, two) = tokio::join!(
            host.put_module(GAME, "all", builds[0].clone()),
            host.put_module(GAME, "all", builds[1].clone())
        );
        for (status, report) in [&one, &two] {
            // No instance was missing for a trial, and none of a room.
            assert_eq!((status, &report["swapped"], &report["refused"]), (&200, &json!(ROOMS), &json!(0)), "{report}");
        }
        let last = loaded(&host, GAME).await["hash"].as_str().unwrap().to_owned();
        assert!(builds.iter().any(|build| hash(build) == last));
        for room in &rooms {
            assert_eq!(rules_of(&host, room).await, last);
        }
        host.stop().await;
    });
}

#[test]
fn a_drag_race_goes_on_under_another_build_of_its_rules() {
    run(120, async {
        let host = Host::start_with(|settings| settings.linger_s = Some(1)).await;
        let api = Api::new(&host.server().url()).unwrap();
        let bot = |name: &str, seed| Bot { name: name.into(), car: "gtr".into(), skill: 0.8, seed, with_udp: true };
        let (eva, finn) = (bot("Eva", 5), bot("Finn", 6));
        let players = [&eva, &finn].map(|bot| json!({ "name": bot.name, "data": { "car": bot.car } }));
        let race = host.open_room(&json!({ "players": players, "seed": 5 })).await;
        let (of_eva, of_finn, ()) =
            tokio::join!(bots::play(&api, &race, &eva, None), bots::play(&api, &race, &finn, None), async {
                host.wait_phase(&race, "running").await;
                for build in ["one", "two"] {
                    let (status, report) =
                        host.put_module("drag-race", "all", other_build(DRAG_RACE_WASM, build)).await;
                    assert_eq!((status, &only(&report)["verdict"]), (200, &json!("swapped")), "{report}");
                }
            });
        for report in [of_eva.unwrap(), of_finn.unwrap()] {
            assert_eq!(report.ending, "finished", "{report:?}");
            let results = report.outcome["results"].as_array().unwrap();
            assert!(results.iter().all(|result| result["data"]["quarter_mile_s"].is_f64()), "{results:?}");
        }
        let record = host.ended(&race).await;
        assert_eq!(record["swaps"].as_array().unwrap().len(), 2, "{record}");
        host.stop().await;
    });
}

#[test]
fn a_watched_file_takes_over_when_it_is_whole_and_good() {
    run(120, async {
        let dir = data_dir();
        let (base, watched) = (dir.path().join("base.wasm"), dir.path().join("rules.wasm"));
        std::fs::write(&base, game().wasm()).unwrap();
        let long = |name: &str| other_build(&Tally::new(GAME, 100_000).wasm(), name);
        let host = Host::start_in(dir, |settings| {
            settings.modules = vec![base];
            settings.watch = vec![watched.clone()];
            settings.probation_frames = Some(20);
        })
        .await;
        assert_eq!(loaded(&host, GAME).await["source"], "flag", "the watched file is not there yet");
        let (room, mut ada) = playing(&host).await;

        let takes_over = async |wasm: Vec<u8>| {
            std::fs::write(&watched, &wasm).unwrap();
            let now = eventually("the watched rules are loaded", SOON, async || {
                let now = loaded(&host, GAME).await;
                if now["hash"] == hash(&wasm) { Ok(now) } else { Err(now.to_string()) }
            })
            .await;
            assert_eq!(now["source"], "watched");
        };
        takes_over(long("1")).await;
        assert_eq!(rules_of(&host, &room).await, hash(&long("1")));
        ada.event("rules_swapped").await;

        // Nonsense, half a module, one that fails: rooms and names keep what they have.
        let bad = Tally { each_tick: "(unreachable)".into(), ..Tally::new(GAME, 100_000) }.wasm();
        for (wasm, words) in [
            (b"not wasm".to_vec(), "WebAssembly"),
            (long("2")[..300].to_vec(), "not valid"),
            (bad.clone(), "unreachable"),
        ] {
            std::fs::write(&watched, &wasm).unwrap();
            eventually("the log says why not", SOON, async || {
                let said = crate::harness::lines_with(words);
                if said.iter().any(|line| line.contains("keeps")) || said.iter().any(|line| line.contains("keep")) {
                    Ok(())
                } else {
                    Err(format!("{said:?}"))
                }
            })
            .await;
        }
        assert_eq!(rules_of(&host, &room).await, hash(&long("1")));
        assert_eq!(loaded(&host, GAME).await["hash"], hash(&long("1")));

        // Deleted and built anew, in place of the old file.
        std::fs::remove_file(&watched).unwrap();
        takes_over(long("3")).await;
        assert_eq!(rules_of(&host, &room).await, hash(&long("3")));
        // The last frame seen is one of many: the room never stopped.
        let last = *ada.snapshot_frames.last().unwrap();
        ada.frame(last + 50).await;
        let first = ada.snapshot_frames[0];
        let last = *ada.snapshot_frames.last().unwrap();
        assert_eq!(ada.snapshot_frames, (first..=last).collect::<Vec<_>>());
        host.stop().await;
    });
}

#[test]
fn what_was_set_is_remembered_and_a_flag_is_stronger() {
    run(60, async {
        let host = Host::start_with_modules(&[game().wasm()], |_| {}).await;
        let (set, flag) = (other_build(DRAG_RACE_WASM, "set"), other_build(DRAG_RACE_WASM, "flag"));
        let (status, report) = host.put_module("drag-race", "all", set.clone()).await;
        assert_eq!((status, &report["rooms"]), (200, &json!([])), "{report}");
        // One room's rules are that room's.
        let room = host.open(GAME, &["Ada"]).await;
        assert_eq!(host.put_module(GAME, &room, other_build(&game().wasm(), "x")).await.0, 200);
        let token = std::fs::read(host.dir.path().join("admin-token")).unwrap();
        let dir = host.stop().await;

        let host = Host::start_in(dir, |_| {}).await;
        let now = loaded(&host, "drag-race").await;
        assert_eq!((&now["hash"], &now["source"]), (&json!(hash(&set)), &json!("set")));
        let modules = host.get("/api/modules").await.1;
        let names = |set: bool| -> Vec<&str> {
            let loaded = modules["loaded"].as_array().unwrap().iter();
            loaded
                .filter(|module| (module["source"] == "set") == set)
                .filter_map(|module| module["name"].as_str())
                .collect()
        };
        assert_eq!((names(true), names(false)), (vec!["drag-race"], vec!["arena"]), "only what was set is remembered");
        assert_eq!(std::fs::read(host.dir.path().join("admin-token")).unwrap(), token);
        let dir = host.stop().await;

        let path = dir.path().join("flag.wasm");
        std::fs::write(&path, &flag).unwrap();
        let host = Host::start_in(dir, |settings| settings.modules = vec![path]).await;
        let now = loaded(&host, "drag-race").await;
        assert_eq!((&now["hash"], &now["source"]), (&json!(hash(&flag)), &json!("flag")));
        host.stop().await;
    });
}

/// Runs `holeshot swap` against a host: exit code, output, what it says on standard error.
async fn swap(host: &Host, file: &Path, more: &[&str]) -> (i32, String, String) {
    let url = host.server().url();
    let mut args = vec!["swap", file.to_str().unwrap(), "--url", &url];
    args.extend(more);
    let output = tokio::time::timeout(SOON * 3, holeshot(&args).output()).await.expect("the command ends").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_command_says_what_became_of_each_room() {
    run(120, async {
        let host = Host::start_with_modules(&[Tally::new(GAME, 100_000).wasm()], |settings| {
            settings.probation_frames = Some(0)
        })
        .await;
        let (room, mut ada) = playing(&host).await;
        let data_dir = host.dir.path().to_str().unwrap().to_owned();
        let good = host.dir.path().join("good.wasm");
        let good_wasm = other_build(&Tally::new(GAME, 100_000).wasm(), "good");
        std::fs::write(&good, &good_wasm).unwrap();
        let (code, out, error) = swap(&host, &good, &["--data-dir", &data_dir]).await;
        assert_eq!(code, 0, "{out}\n{error}");
        for words in
            [GAME, hash(&good_wasm).as_str(), room.as_str(), "has the new rules from frame", "new rooms: have it"]
        {
            assert!(out.contains(words), "no {words:?} in {out}");
        }
        ada.event("rules_swapped").await;

        // With the token itself, for one room, as JSON.
        let token = std::fs::read_to_string(host.dir.path().join("admin-token")).unwrap();
        let again = host.dir.path().join("again.wasm");
        std::fs::write(&again, other_build(&good_wasm, "again")).unwrap();
        let more = ["--token", token.trim(), "--rooms", &room, "--name", GAME, "--json"];
        let (code, out, error) = swap(&host, &again, &more).await;
        assert_eq!(code, 0, "{out}\n{error}");
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (&only(&report)["verdict"], &report["new_rooms"]),
            (&json!("swapped"), &json!("not_asked")),
            "{out}"
        );

        // A room that refuses is a failure, with the backtrace.
        let bad = host.dir.path().join("bad.wasm");
        std::fs::write(&bad, Tally { each_tick: "(unreachable)".into(), ..Tally::new(GAME, 100_000) }.wasm()).unwrap();
        for rooms in ["all", room.as_str()] {
            let (code, out, error) = swap(&host, &bad, &["--data-dir", &data_dir, "--rooms", rooms]).await;
            assert_eq!(code, 1, "{out}\n{error}");
            for words in ["REFUSED", "trap in frame", "unreachable", "wasm function", &room] {
                assert!(out.contains(words), "no {words:?} in {out}");
            }
            assert!(!error.contains(token.trim()) && error.contains("error: "), "{error}");
        }

        // What nothing is sent for: no wasm, no token, a wrong one; and nobody there.
        let text = host.dir.path().join("text.wasm");
        std::fs::write(&text, "(module)").unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let nowhere = elsewhere.path().to_str().unwrap();
        for (file, more, words) in [
            (&text, ["--data-dir", data_dir.as_str()], "nothing was sent"),
            (&good, ["--data-dir", nowhere], "admin token"),
            (&good, ["--token", "short"], "--token"),
            (&good, ["--token", "a-word-that-someone-chose"], "not the admin token"),
            (&good, ["--token", "-7-begins-like-an-option"], "not the admin token"),
        ] {
            let (code, out, error) = swap(&host, file, &more).await;
            assert_eq!((code, out.as_str()), (1, ""), "{error}");
            assert!(error.contains(words), "no {words:?} in {error}");
        }
        let none = elsewhere.path().join("none.wasm");
        let (code, _, error) = swap(&host, &none, &["--data-dir", &data_dir]).await;
        assert!(code == 1 && error.contains("none.wasm"), "{error}");
        let dir = host.stop().await;
        let url = ["--url", "http://127.0.0.1:9", "--data-dir", &data_dir];
        let mut args = vec!["swap", good.to_str().unwrap()];
        args.extend(url);
        let output = tokio::time::timeout(Duration::from_secs(60), holeshot(&args).output()).await.unwrap().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && error.contains("holeshot serve"), "{error}");
        drop(dir);
    });
}
