//! Checks what the rules returned, before any of it leaves the room. Layout and sizes are checked by `holeshot-abi`;
//! here it is JSON, results and the names that belong to the room.

use holeshot_abi::{Item, OutputReader, PLAYERS_MAX, PlayerResult, is_event_name};
use serde::de::IgnoredAny;

use crate::json;
use crate::rules::{Fault, FaultKind};

/// Names of public events that only the room itself sends. A module that uses one has a fault: players could not
/// tell a staged `finished` from the true one.
pub const PUBLIC_NAMES_RESERVED: [&str; 10] = [
    "player_joined",
    "player_ready",
    "player_left",
    "cutscene",
    "countdown",
    "started",
    "finished",
    "aborted",
    "rules_swapped",
    "rules_rolled_back",
];

/// How names of internal events begin that only the host itself sends; likewise.
pub const INTERNAL_PREFIXES_RESERVED: [&str; 3] = ["host.", "room.", "player."];

/// Bytes of what is said of a bad output, the rest is cut: it may quote a text of the module, and the event that ends or saves the room has to be one
/// that a host can record.
const PROBLEM_BYTES_MAX: usize = 1 << 10;

/// The items of a record that [`check`] has let pass.
pub(crate) fn items(checked: &[u8]) -> impl Iterator<Item = Item<'_>> {
    OutputReader::of_checked(checked).items()
}

/// Checks an output record of a room with `players` slots. The error names the item and what is wrong with it.
pub(crate) fn check(bytes: &[u8], players: usize) -> Result<(), String> {
    let reader = OutputReader::read(bytes, players).map_err(|malformed| malformed.to_string())?;
    for (at, item) in reader.items().enumerate() {
        match item {
            Item::SharedSnapshot(_) | Item::Snapshot { .. } => {}
            Item::PublicEvent { name, json } => {
                if PUBLIC_NAMES_RESERVED.contains(&name) {
                    return Err(format!(
                        "item {at}: the name of the public event `{name}` is reserved for the host; use another"
                    ));
                }
                check_json(json).map_err(|why| format!("item {at}: the data of the public event `{name}` {why}"))?;
            }
            Item::InternalEvent { name, json } => {
                if let Some(prefix) = INTERNAL_PREFIXES_RESERVED.iter().find(|prefix| name.starts_with(**prefix)) {
                    return Err(format!(
                        "item {at}: names of internal events that begin with `{prefix}`, like `{name}`, are reserved for the host; use another"
                    ));
                }
                check_json(json).map_err(|why| format!("item {at}: the data of the internal event `{name}` {why}"))?;
            }
            Item::Results(json) => {
                check_results(json, players).map_err(|why| format!("item {at}: the results {why}"))?;
            }
        }
    }
    Ok(())
}

/// The results in a record that [`check`] has let pass, JSON text.
pub(crate) fn results(checked: &[u8]) -> Option<&str> {
    items(checked).find_map(|item| if let Item::Results(json) = item { Some(json) } else { None })
}

/// The fault of rules whose output did not pass.
pub(crate) fn bad(frame: u32, problem: &str) -> Fault {
    let cut = problem.floor_char_boundary(PROBLEM_BYTES_MAX);
    let (problem, rest) = problem.split_at_checked(cut).unwrap_or((problem, ""));
    let problem = if rest.is_empty() { problem.to_owned() } else { format!("{problem}…") };
    Fault::new(FaultKind::BadOutput, format!("the output of frame {frame} cannot be used: {problem}"))
}

fn check_json(json: &str) -> Result<(), String> {
    json::check(json).map_err(|error| format!("are not JSON that everybody can read: {error}"))
}

fn check_results(json: &str, players: usize) -> Result<(), String> {
    check_json(json)?;
    let results: Vec<PlayerResult<IgnoredAny>> =
        serde_json::from_str(json).map_err(|error| format!("are not a JSON array of player results: {error}"))?;
    let mut seen = [false; PLAYERS_MAX];
    for result in &results {
        let player = result.player;
        match seen.get_mut(usize::from(player)).filter(|_| usize::from(player) < players) {
            None => {
                return Err(format!("name player {player}; the room has the slots 0 to {}", players.saturating_sub(1)));
            }
            Some(seen) if *seen => return Err(format!("name player {player} twice")),
            Some(seen) => *seen = true,
        }
        if result.place == Some(0) {
            return Err(format!("give player {player} place 0; places count from 1"));
        }
        if !is_event_name(&result.outcome) {
            return Err(format!(
                "give player {player} the outcome {:?}; an outcome is 1 to 64 characters of a-z, 0-9, _ and ., beginning with a letter",
                result.outcome
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holeshot_abi::OutputWriter;

    fn problem(item: Item<'_>) -> Option<String> {
        let mut writer = OutputWriter::default();
        writer.begin();
        writer.push(Item::SharedSnapshot(b"s"));
        writer.push(item);
        check(writer.finish(), 2).err()
    }

    fn results(json: &str) -> Option<String> {
        problem(Item::Results(json))
    }

    #[test]
    fn what_is_fine_passes() {
        assert_eq!(problem(Item::PublicEvent { name: "green", json: "null" }), None);
        assert_eq!(problem(Item::InternalEvent { name: "race.green", json: r#"{"a":[1e9,"\u00e9"]}"# }), None);
        assert_eq!(results("[]"), None);
        assert_eq!(
            results(
                r#"[{"player":1,"place":1,"outcome":"won","data":{"et":1.5}},{"player":0,"outcome":"lost","data":null}]"#
            ),
            None
        );
        assert_eq!(check(b"", 2), Ok(()));
        assert_eq!(items(b"").count(), 0);
    }

    #[test]
    fn what_is_said_of_a_bad_output_is_short_whatever_the_module_wrote() {
        let text = "ä\u{1}".repeat(4_000);
        let long =
            results(&format!(r#"[{{"player":0,"outcome":{},"data":1}}]"#, serde_json::to_string(&text).unwrap()));
        let fault = bad(7, &long.unwrap());
        assert!(fault.message.starts_with("the output of frame 7 cannot be used: item 1: the results give player 0"));
        assert!(
            fault.message.len() < PROBLEM_BYTES_MAX + 50 && fault.message.ends_with('…'),
            "{}",
            fault.message.len()
        );
        assert!(bad(7, "is none").message.ends_with(": is none"));
    }

    #[test]
    fn each_problem_is_named() {
        let cases = [
            (
                problem(Item::PublicEvent { name: "finished", json: "1" }),
                "item 1: the name of the public event `finished` is reserved",
            ),
            (
                problem(Item::InternalEvent { name: "room.finished", json: "1" }),
                "begin with `room.`, like `room.finished`",
            ),
            (
                problem(Item::PublicEvent { name: "x", json: "" }),
                "item 1: the data of the public event `x` are not JSON that everybody can read: EOF",
            ),
            (
                problem(Item::InternalEvent { name: "x", json: "{} {}" }),
                "item 1: the data of the internal event `x` are not JSON that everybody can read: trailing",
            ),
            (
                results(r#"[{"player":0,"outcome":"won","data":{"elapsed_s":1e999}}]"#),
                "the results are not JSON that everybody can read: number out of range",
            ),
            (results(r#"[{"player":0,"outcome":"won","data":1,"more":"\ud800"}]"#), "can read: unexpected end of hex"),
            (problem(Item::Snapshot { player: 2, bytes: b"" }), "output record, field `player` at byte"),
            (results("{}"), "item 1: the results are not a JSON array of player results: invalid type: map"),
            (results(r#"[{"player":0,"outcome":"won"}]"#), "missing field `data`"),
            (results(r#"[{"player":2,"outcome":"won","data":1}]"#), "name player 2; the room has the slots 0 to 1"),
            (results(r#"[{"player":65535,"outcome":"won","data":1}]"#), "name player 65535; the room has"),
            (
                results(r#"[{"player":0,"outcome":"won","data":1},{"player":0,"outcome":"won","data":1}]"#),
                "name player 0 twice",
            ),
            (results(r#"[{"player":0,"place":0,"outcome":"won","data":1}]"#), "give player 0 place 0"),
            (results(r#"[{"player":0,"outcome":"Won!","data":1}]"#), "give player 0 the outcome \"Won!\""),
        ];
        for (found, expected) in cases {
            let found = found.unwrap_or_else(|| panic!("passed, though: {expected}"));
            assert!(found.contains(expected), "{found:?} does not say {expected:?}");
        }
    }
}
