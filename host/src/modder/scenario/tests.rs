//! Scenarios against the modules of the tests: what comes true, what does not and how that is told, and files that are none.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::rules::{DRAG_RACE_WASM, Engine, EngineSettings, ModuleStore};

/// Adds up fresh bytes, 100 for an action, and finishes after 100 frames: `tests/modules/tally.c`.
const TALLY: &[u8] = include_bytes!("../../../../tests/modules/tally-c.wasm");
/// Stops in every tick.
const LINES: &[u8] = include_bytes!("../../../../tests/modules/lines.wasm");

fn module(bytes: &[u8]) -> Arc<Module> {
    let engine = Engine::new(EngineSettings { instances_max: 8, ..EngineSettings::default() }).unwrap();
    ModuleStore::new(engine, None).unwrap().load(bytes).unwrap()
}

fn play(module: &Arc<Module>, text: &str) -> Tested {
    let script = file::parse("test.toml", text, module.manifest()).unwrap_or_else(|error| panic!("{error}"));
    run(module, "test.toml", &script)
}

#[track_caller]
fn passes(module: &Arc<Module>, text: &str) -> Tested {
    let tested = play(module, text);
    assert!(tested.passed(), "{tested:#?}");
    tested
}

/// The one failure of a scenario.
#[track_caller]
fn fails(module: &Arc<Module>, text: &str) -> String {
    let tested = play(module, text);
    let mut failures: Vec<String> = tested.checks.into_iter().filter_map(|check| check.failure).collect();
    failures.extend(tested.faults.into_iter().map(|fault| fault.message));
    assert_eq!(failures.len(), 1, "{failures:?}");
    failures.remove(0)
}

const TALLY_PLAYED: &str = r#"
[[player]]
name = "Ada"
[[player]]
name = "Ben"
[snapshot]
fields = ["ada:u32le", "ben:u32le"]
[[play]]
player = "Ada"
frames = "1..11"
hex = "05"
[[play]]
player = ["Ada", "Ben"]
frames = "10"
hex = "07"
[[lose]]
player = "Ada"
frames = "3..5"
[[late]]
player = "Ada"
frames = "6..8"
by_frames = 2
[[action]]
player = "Ben"
frame = 20
data = { any = ["thing", 1, 2.5, true] }
"#;

#[test]
fn inputs_are_sent_lost_and_late_and_actions_reach_the_rules() {
    // Frames 1, 2, 5, 8, 9 with 5, and 10 with 7, which is the later entry.
    let tested = passes(
        &module(TALLY),
        &format!(
            r#"{TALLY_PLAYED}
[[expect]]
snapshot_after = 2
player = "Ada"
data = {{ ada = 10, ben = 0 }}
[[expect]]
snapshot_after = 99
player = "Ben"
hex = "20000000 6b000000"
[[expect]]
result = "Ada"
outcome = "counted"
data = 32
[[expect]]
result = "Ben"
data = 107
[[expect]]
event = "joined"
frames = 0
count = 2
[[expect]]
event = "joined"
public = false
count = 0
[[expect]]
ending = "finished"
"#
        ),
    );
    assert_eq!((tested.frames, tested.ending.as_str(), tested.notes.len()), (100, "finished", 0));
}

#[test]
fn every_expectation_can_fail_and_says_what_was_found() {
    let tally = module(TALLY);
    let fails = |expect: &str| fails(&tally, &format!("{TALLY_PLAYED}\n[[expect]]\n{expect}"));
    for (expect, part) in [
        ("event = \"joined\"\ncount = 1", "found 2 that match\nframe 0: matches\n  data {\"player\":0}"),
        ("event = \"joined\"\nframes = 1", "frame 0: not in these frames"),
        ("event = \"joined\"\ndata = { player = 5 }", "`player`: expected 5, found 0"),
        ("event = \"nothing\"", "there was no event `nothing`. There were"),
        ("event = \"joined\"\npublic = false", "there was no event `joined`"),
        ("event = \"room.finished\"\ncount = 0", "found 1 that match"),
        ("result = \"Ada\"\noutcome = \"won\"", "found counted, place none\n  data 32"),
        ("result = \"Ada\"\nplace = 1", "found counted, place none"),
        ("result = \"Ada\"\ndata = 33", "expected 33, found 32"),
        ("snapshot_after = 5\nplayer = \"Ada\"\ndata = { ada = 16 }", "`ada`: expected 16, found 15"),
        ("snapshot_after = 5\nplayer = \"Ada\"\nhex = \"00\"", "expected 00\nfound    \"0f000000"),
        ("snapshot_after = 500\nplayer = \"Ada\"\ndata = {}", "the game was left before it, after 100 frames"),
        ("snapshot_after = \"joined-1\"\nplayer = \"Ada\"\ndata = {}", "that frame had passed"),
        ("snapshot_after = \"nothing+1\"\nplayer = \"Ada\"\ndata = {}", "there was no event `nothing`"),
        ("state_after = 5\ndata = {}", "does not export holeshot_describe"),
        ("ending = \"running\"", "expected running, found finished after 100 frames"),
    ] {
        let failure = fails(expect);
        assert!(failure.contains(part), "{expect}: {failure}");
    }
    let left = "[room]\nframes = 10\n[[player]]\nname = \"Ada\"\n[[expect]]\nending = \"running\"\n";
    assert_eq!(passes(&tally, left).frames, 10);
    let failure = self::fails(&tally, &format!("{left}[[expect]]\nresult = \"Ada\"\n"));
    assert_eq!(failure, "there are no results: the game is running after 10 frames");
}

#[test]
fn what_never_happened_is_noted() {
    let tested = passes(
        &module(TALLY),
        "[[player]]\nname = \"Ada\"\n[[leave]]\nplayer = \"Ada\"\nframe = \"nothing+3\"\n[[play]]\nplayer = \"Ada\"\nframes = \"200..\"\nhex = \"01\"\n\
         [[action]]\nplayer = \"Ada\"\nframe = 300\ndata = 1\n[[expect]]\nending = \"finished\"\n",
    );
    assert_eq!(
        tested.notes,
        [
            "action 1 of Ada before frame 300 never happened: the game was over before frame 300",
            "leaving of Ada before frame nothing+3 never happened: there was no event `nothing`",
            "what is played in frames 200.. was never sent",
        ]
    );
}

#[test]
fn a_fault_fails_the_scenario_with_its_place_unless_it_is_expected() {
    let lines = module(LINES);
    let scenario = |ending: &str| format!("[[player]]\nname = \"Ada\"\n[[expect]]\nending = \"{ending}\"\n");
    let tested = play(&lines, &scenario("running"));
    let [fault] = &tested.faults[..] else { panic!("{tested:?}") };
    assert!(
        fault.message.starts_with("frame 0: trap: ") && fault.message.contains("a host ends the room"),
        "{fault:?}"
    );
    assert!(fault.backtrace.as_ref().unwrap().contains("(my-rules/src/lines.rs:"), "{fault:?}");
    assert_eq!(tested.ending, "rules_fault");
    passes(&lines, &scenario("rules_fault"));
}

const RACE: &str = r#"
[room]
seed = 5
options = { tree = "pro" }
[[player]]
name = "Ada"
data = { car = "model_3p" }
[[player]]
name = "Ben"
data = { car = "model_3p" }
[input]
fields = ["throttle:u8", "clutch:u8", "gear:u8"]
[[play]]
player = ["Ada", "Ben"]
frames = "..tree_started+25"
input = { clutch = 255 }
[[play]]
player = ["Ada", "Ben"]
frames = "tree_started+25.."
input = { throttle = 255 }
"#;

#[test]
fn a_race_is_driven_by_its_events_and_looked_into() {
    let race = module(DRAG_RACE_WASM);
    let lost = "[[leave]]\nplayer = \"Ben\"\nframe = \"launched+50\"\nhow = \"connection_lost\"\n";
    let tested = passes(
        &race,
        &format!(
            r#"{RACE}{lost}
[[expect]]
state_after = "staged"
data = {{ tree = "pro", lanes = [{{ phase = "Staged" }}, {{ phase = "Staged" }}] }}
between = {{ tree_frame = [51, 130] }}
absent = ["decided_frame", "lanes.0.fate"]
[[expect]]
event = "launched"
between = {{ "lanes.0.reaction_s" = [0.0, 0.5] }}
[[expect]]
result = "Ada"
between = {{ quarter_mile_s = [11.0, 12.5] }}
"#
        ),
    );
    assert!(tested.frames > 500 && tested.ending == "finished", "{tested:?}");
    // Who is back within the grace time races on.
    let back =
        "[[return]]\nplayer = \"Ben\"\nframe = \"launched+200\"\n[[expect]]\nresult = \"Ben\"\nabsent = [\"no\"]\n";
    let data = |text: &str| play(&race, text).checks[0].clone();
    assert_eq!(data(&format!("{RACE}{lost}{back}")).failure, None);
    let quit = "[[leave]]\nplayer = \"Ben\"\nframe = \"launched+50\"\n[[expect]]\nevent = \"player_left\"\ndata = { reason = \"quit\" }\n\
                [[expect]]\nresult = \"Ben\"\noutcome = \"left\"\n";
    passes(&race, &format!("{RACE}{quit}"));
    // The last state is not kept.
    let last = format!("{RACE}[[expect]]\nstate_after = \"finished\"\ndata = {{}}\n");
    assert!(fails(&race, &last).contains("look at the frame before"));
    let refused = RACE.replace("model_3p", "boat") + "[[expect]]\nending = \"finished\"\n";
    let tested = play(&race, &refused);
    assert!(tested.faults[0].message.contains("no car has the id \"boat\""), "{tested:?}");
    assert_eq!(serde_json::to_value(&tested).unwrap()["checks"], json!([]));
}

#[test]
fn a_file_that_is_no_scenario_says_the_line_and_what_to_write() {
    let tally = module(TALLY);
    let one = "[[player]]\nname = \"Ada\"\n";
    let expect = "[[expect]]\nending = \"finished\"\n";
    for (text, line, part) in [
        (String::new(), None, "no player"),
        (one.to_owned(), None, "nothing is expected"),
        (format!("{one}[[player]\n"), Some(3), ""),
        (format!("{one}colour = 1\n{expect}"), Some(3), "unknown field `colour`"),
        (format!("{one}{one}{expect}"), Some(3), "two players"),
        (
            format!("{one}[[play]]\nplayer = \"Bob\"\nframes = 1\nhex = \"\"\n{expect}"),
            Some(3),
            "no player is named \"Bob\"; the players are Ada",
        ),
        (format!("{one}[[play]]\nplayer = \"Ada\"\nframes = 1\n{expect}"), Some(3), "either `input` or `hex`"),
        (
            format!("{one}[[play]]\nplayer = \"Ada\"\nframes = 1\ninput = {{}}\n{expect}"),
            Some(3),
            "declares its `fields`",
        ),
        (format!("{one}[[play]]\nplayer = \"Ada\"\nframes = 1\nhex = \"0\"\n{expect}"), Some(3), "hexadecimal"),
        (
            format!("{one}[[play]]\nplayer = \"Ada\"\nframes = 1\nhex = \"00112233445566778899\"\n{expect}"),
            Some(3),
            "takes at most",
        ),
        (format!("{one}[[play]]\nplayer = \"Ada\"\nframes = \"5..5\"\nhex = \"\"\n{expect}"), Some(5), "has no frames"),
        (
            format!("{one}[[play]]\nplayer = \"Ada\"\nframes = true\nhex = \"\"\n{expect}"),
            Some(5),
            "a frame is a number",
        ),
        (format!("[input]\nfields = [\"a:u9\"]\n{one}{expect}"), Some(1), "\"a:u9\" is no field"),
        (
            format!(
                "[input]\nfields = [\"a:u8\"]\n{one}[[play]]\nplayer = \"Ada\"\nframes = 1\ninput = {{ a = 256 }}\n{expect}"
            ),
            Some(5),
            "`a` is 256",
        ),
        (format!("{one}[[leave]]\nplayer = \"Ada\"\nframe = 1\nhow = \"boat\"\n{expect}"), Some(6), "boat"),
        (format!("{one}[[expect]]\n"), Some(3), "exactly one of `event`"),
        (format!("{one}[[expect]]\nending = \"won\"\n"), Some(3), "one of finished, running"),
        (format!("{one}[[expect]]\nevent = \"x\"\nplace = 1\n"), Some(3), "`place` says nothing beside `event`"),
        (format!("{one}[[expect]]\nevent = \"x\"\nending = \"finished\"\n"), Some(3), "exactly one"),
        (format!("{one}[[expect]]\nresult = \"Bob\"\n"), Some(3), "no player is named"),
        (format!("{one}[[expect]]\nevent = \"x\"\nbetween = {{ a = 1 }}\n"), Some(3), "`between.a` is a list"),
        (format!("{one}[[expect]]\nevent = \"x\"\nbetween = {{ a = [2, 1] }}\n"), Some(3), "`between.a` is a list"),
        (format!("{one}[[expect]]\nsnapshot_after = 1\n"), Some(3), "table [snapshot]"),
    ] {
        let error = file::parse("race.toml", &text, tally.manifest()).err().unwrap_or_else(|| panic!("{text}"));
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.problem.contains(part), "{text}: {error}");
        let place = line.map_or("race.toml: ".to_owned(), |line| format!("race.toml:{line}: "));
        assert!(error.to_string().starts_with(&place), "{error}");
    }
    let missing = test(&tally, "/nowhere/race.toml".as_ref()).unwrap_err();
    assert!(missing.to_string().starts_with("/nowhere/race.toml: it cannot be read"), "{missing}");
}

#[test]
fn the_example_of_the_documentation_is_a_scenario() {
    let docs = include_str!("mod.rs");
    let example: String = docs
        .lines()
        .skip_while(|line| *line != "//! ```toml")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.trim_start_matches("//!").to_owned() + "\n")
        .collect();
    passes(&module(DRAG_RACE_WASM), &example);
}
