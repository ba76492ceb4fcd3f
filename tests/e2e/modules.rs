//! Rules modules from elsewhere, in a host with real sockets: one by hand and one in C play a whole room; broken ones end their own room and
//! touch no other; files that are no rules stop the host at its start, with the reason. Each single breach of the
//! boundary is covered in `host/src/rules/tests.rs`.

use std::path::Path;

use holeshot::api::Api;
use holeshot::bots::{self, Bot};
use holeshot::server::Server;
use holeshot_wire::ByeCode;
use serde_json::json;

use crate::harness::{Host, announce_errors, data_dir, lines_of, run, settings};
use crate::modules_made::{Tally, short, tally};
use crate::peer::{GAMES_MAX, Peer, UdpPeer, inputs_taken, serves_a_game};

/// Built from `tests/modules/tally.c`.
const TALLY_C: &[u8] = include_bytes!("../modules/tally-c.wasm");

async fn plays_tally(module: Vec<u8>) {
    let host = Host::start_with_modules(&[module], |_| {}).await;
    let mut games = 1;
    while !plays_tally_once(&host).await {
        assert!(games < GAMES_MAX, "in {games} games an input was a second too late");
        games += 1;
    }
    // The line that tally logs when it begins reached the host's log.
    assert!(host.get("/api/modules").await.1["loaded"].to_string().contains("tally"));
    host.stop().await;
}

/// Plays one game and checks its results; false if the machine was so busy that inputs came too late.
async fn plays_tally_once(host: &Host) -> bool {
    let room = host.open("tally", &["Ada", "Ben"]).await;
    let mut ada = UdpPeer::enter(&host.join(&room, "Ada").await).await;
    let mut ben = Peer::enter(&host.join(&room, "Ben").await).await;
    ada.establish().await;
    ada.peer.ready().await;
    ben.ready().await;
    ada.peer.event("started").await;
    // Each frame's input once, one of them twice with another value: the first counts. All are within the track from frame 0 on.
    for frame in 54..64 {
        ada.input(frame, &[3]).await;
    }
    ada.input(60, &[200]).await;
    ben.input(57, &[5]).await;
    // An action counts 100.
    ben.say_text(r#"{"type":"action","id":1,"data":{"any":"thing"}}"#).await;
    let finished = ada.peer.event("finished").await;
    if inputs_taken(host, &room).await != [10, 1] {
        return false;
    }
    // The last snapshot that came, of the frame of the results, has the same tallies.
    let (_, snapshot) = ada.snapshot(99).await;
    assert_eq!(snapshot, [30u32.to_le_bytes(), 105u32.to_le_bytes()].concat());
    let expected = json!([
        { "player": 0, "outcome": "counted", "data": 30 },
        { "player": 1, "outcome": "counted", "data": 105 },
    ]);
    assert_eq!(finished.data, json!({ "frames": 100, "results": expected }));
    let record = host.ended(&room).await;
    assert_eq!(record["module_name"], "tally");
    let recorded: Vec<_> = record["results"].as_array().unwrap().iter().map(|r| (&r["player"], &r["data"])).collect();
    assert_eq!(recorded, [(&json!(0), &json!(30)), (&json!(1), &json!(105))]);
    true
}

#[test]
fn rules_by_hand_play_a_room_to_its_results() {
    run(60, plays_tally(tally()));
}

#[test]
fn rules_in_c_play_a_room_to_its_results() {
    run(60, plays_tally(TALLY_C.to_vec()));
}

/// Rules that fail: the module, the kind of fault, words of its message, the frame.
fn broken() -> Vec<(Tally, &'static str, &'static str, u32)> {
    // An output of one item: kind, length of its name, length of its data, then the rest.
    let output = |kind_and_name: u32, data_len: u32, rest: &str, bytes: u32| {
        format!(
            "(i32.store (i32.const 8192) (i32.const 1)) (i32.store (i32.const 8196) (i32.const 0))
             (i32.store (i32.const 8200) (i32.const {kind_and_name})) (i32.store (i32.const 8204) (i32.const {data_len}))
             {rest} (return (call $span (i32.const 8192) (i32.const {bytes})))"
        )
    };
    let staged_end = "(i64.store (i32.const 8208) (i64.const 0x64656873696e6966)) (i32.store (i32.const 8216) (i32.const 0x6c6c756e))";
    let chatter = "(loop $more (call $log (i32.const 3) (i32.const 472) (i32.const 14)) (br $more))";
    let growing = Tally {
        each_tick: "(if (i32.eq (memory.grow (i32.const 4)) (i32.const -1)) (then (unreachable)))".into(),
        ..Tally::new("grows", 1_000)
    };
    let at = |name: &str, code: &str| Tally::new(name, 1_000).at_frame(30, code);
    // A frame that takes too long is skipped; the fifth in a row is a fault.
    let since = |name: &str, code: &str| Tally::new(name, 1_000).since_frame(26, code);
    vec![
        (at("traps", "(unreachable)"), "trap", "unreachable", 30),
        (at("divides", "(drop (i32.div_u (i32.const 1) (i32.const 0)))"), "trap", "divide by zero", 30),
        (since("spins", "(loop $spin (br $spin))"), "fuel_exhausted", "endless loop", 30),
        // Five pages at first, four more each tick, sixty-four at most.
        (growing, "memory_exceeded", "4194304 bytes", 14),
        (at("lies", "(return (i64.const 0x7fffffff00000010))"), "bad_span", "outside the memory", 30),
        (at("babbles", &output(9, 0, "", 16)), "bad_output", "field `kind` at byte 8", 30),
        (at("cheats", &output(0x803, 4, staged_end, 28)), "bad_output", "reserved", 30),
        (since("floods", chatter), "fuel_exhausted", "endless loop", 30),
    ]
}

/// One player in a room of broken rules: what it is told, and what is recorded.
async fn ends_its_own_room(host: &Host, tally: &Tally, kind: &str, words: &str, frame: u32) {
    let name = tally.name.as_str();
    let room = host.open(name, &["Ada"]).await;
    announce_errors(&room, "the rules failed; the room ends");
    let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
    ada.ready().await;
    let aborted = ada.event("aborted").await;
    assert_eq!(aborted.data, json!({ "frames": frame + 1, "reason": "rules_fault", "fault": kind }), "{name}");
    assert_eq!(aborted.frame, Some(frame), "{name}");
    // Nothing of the tick that failed was sent; a skipped one repeats what was sent before.
    assert!(ada.snapshot_frames.iter().all(|seen| *seen < frame), "{name}: {:?}", ada.snapshot_frames);
    assert!(!ada.names().contains(&"finished"), "{name}");
    assert_eq!(ada.bye().await.0, ByeCode::RoomAborted);
    let record = host.ended(&room).await;
    assert_eq!((&record["state"], &record["reason"]), (&json!("aborted"), &json!("rules_fault")), "{name}");
    let ended = record["events"].as_array().unwrap().iter().find(|e| e["kind"] == "room.aborted").unwrap();
    let fault = &ended["event"]["data"]["fault"];
    assert_eq!((&fault["kind"], &fault["frame"]), (&json!(kind), &json!(frame)), "{name}");
    assert!(fault["message"].as_str().unwrap().contains(words), "{name}: {fault}");
    let lines = lines_of(&room).len();
    // 33 of each call, of which a frame that is skipped has one.
    assert!(lines < 6 * 33, "{name} put {lines} lines into the host's log");
}

#[test]
fn rules_that_fail_end_their_own_room_and_no_other() {
    run(150, async {
        let broken = broken();
        let greedy = Tally { each_tick: "(drop (memory.grow (i32.const 64)))".into(), ..Tally::new("greedy", 25) };
        let chatty = "(local.set $left (i32.const 100))
            (loop $more
              (call $log (i32.const 3) (i32.const 472) (i32.const 14))
              (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))";
        let chatty = Tally { each_tick: chatty.into(), ..Tally::new("chatty", 25) };
        let mut modules: Vec<_> = broken.iter().map(|(tally, ..)| tally.wasm()).collect();
        modules.extend([short(), greedy.wasm(), chatty.wasm()]);
        let host = Host::start_with_modules(&modules, |settings| settings.linger_s = Some(1)).await;

        // A drag race that runs all the while, on the same shard.
        let api = Api::new(&host.server().url()).unwrap();
        let bot = |name: &str, seed| Bot { name: name.into(), car: "gtr".into(), skill: 0.8, seed, with_udp: true };
        let (eva, finn) = (bot("Eva", 5), bot("Finn", 6));
        let players = [&eva, &finn].map(|bot| json!({ "name": bot.name, "data": { "car": bot.car } }));
        let race = host.open_room(&json!({ "players": players, "options": null, "seed": 5 })).await;
        let (of_eva, of_finn, ()) =
            tokio::join!(bots::play(&api, &race, &eva, None), bots::play(&api, &race, &finn, None), async {
                host.wait_phase(&race, "running").await;
                for (tally, kind, words, frame) in &broken {
                    ends_its_own_room(&host, tally, kind, words, *frame).await;
                }
                // Rules that are only greedy or talkative get less than they ask for, and go on.
                for tally in [&greedy, &chatty] {
                    let room = host.open(&tally.name, &["Ada"]).await;
                    let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
                    ada.ready().await;
                    assert_eq!(ada.event("finished").await.data["frames"], 25, "{}", tally.name);
                    let lines = lines_of(&room);
                    // 32 lines of 100 in each of 25 ticks, and one that says so.
                    assert!(lines.len() <= 25 * 33 + 1, "{} lines", lines.len());
                    if tally.name == "chatty" {
                        assert!(lines.iter().any(|(_, line)| line.contains("the rest is dropped")));
                    }
                }
                serves_a_game(&host).await;
            });
        for report in [of_eva.unwrap(), of_finn.unwrap()] {
            assert_eq!(report.ending, "finished", "{report:?}");
            let results = report.outcome["results"].as_array().unwrap();
            assert!(results.iter().all(|result| result["data"]["quarter_mile_s"].is_f64()), "{results:?}");
            assert!(report.snapshots_missed < report.snapshots_received, "{report:?}");
        }
        host.stop().await;
    });
}

/// The message of a host that does not start because of a module.
async fn refused(dir: &Path, files: &[(&str, Vec<u8>)]) -> String {
    let mut settings = settings(dir);
    for (name, bytes) in files {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        settings.modules.push(path);
    }
    let last = settings.modules.last().unwrap().clone();
    match Server::start(settings.resolve().unwrap()).await {
        Ok(_) => panic!("a host with {last:?} started"),
        Err(error) => {
            let text = format!("{error:#}");
            assert!(text.contains(&*last.to_string_lossy()), "the file is not named: {text}");
            text
        }
    }
}

#[test]
fn a_file_that_is_no_rules_module_stops_the_start_with_the_reason() {
    run(60, async {
        let dir = data_dir();
        let text = include_str!("../modules/tally.wat");
        let changed = |what: &str, with: &str| {
            assert_eq!(text.matches(what).count(), 1);
            wat::parse_str(text.replace(what, with)).unwrap()
        };
        let import = r#"(import "holeshot" "log""#;
        let wasi = r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))) (import "holeshot" "log""#;
        let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
            ("garbage.wasm", b"\x7fELF and so on".to_vec(), &["WebAssembly"]),
            ("empty.wasm", Vec::new(), &["WebAssembly"]),
            ("text.wat", text.as_bytes().to_vec(), &["WebAssembly"]),
            ("cut.wasm", tally()[..200].to_vec(), &[]),
            ("abi.wasm", changed("(i32.const 0x00010000)", "(i32.const 0x00020000)"), &["2.0", "1.0"]),
            ("wasi.wasm", changed(import, wasi), &["wasi_snapshot_preview1", "fd_write"]),
            ("nothing.wasm", wat::parse_str("(module)").unwrap(), &["holeshot_abi_version"]),
            ("save.wasm", changed("(export \"holeshot_save\")", "(export \"save\")"), &["holeshot_save"]),
            ("large.wasm", changed("(export \"memory\") 5)", "(export \"memory\") 65)"), &["memory"]),
            ("manifest.wasm", changed("\\\"players_max\\\":8", "\\\"players_max\\\":0"), &["players_m"]),
        ];
        for (name, bytes, words) in cases {
            let message = refused(dir.path(), &[(name, bytes)]).await;
            println!("{message}\n");
            for word in words {
                assert!(message.contains(word), "{name}: no {word:?} in {message}");
            }
        }
        let twice = refused(dir.path(), &[("one.wasm", tally()), ("two.wasm", TALLY_C.to_vec())]).await;
        assert!(twice.contains("two modules are named tally"), "{twice}");
        // Nothing holds the folder: a host with a sound module starts there.
        let host = Host::start_in(dir, |settings| {
            let path = settings.data_dir.as_ref().unwrap().join("sound.wasm");
            std::fs::write(&path, short()).unwrap();
            settings.modules = vec![path];
        })
        .await;
        serves_a_game(&host).await;
        host.stop().await;
    });
}
