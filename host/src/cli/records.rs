//! `holeshot records`: results, personal bests, head-to-head and leaderboards of a running host or manager, as a table, as JSON or as CSV.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::host::HostArgs;
use super::output::say;
use crate::api::Api;
use crate::doors::records::PAGE_ROWS_MAX;

/// Most rows that one command fetches: 500 pages. For all of them there is the database itself.
const ROWS_MAX: u64 = 100_000;
/// Characters of a cell: what is longer is cut in a table, and whole in JSON and CSV.
const CELL_CHARS_MAX: usize = 40;
/// Characters of `2026-11-21T18:00:00`.
const TIME_CHARS: usize = 19;
/// Digits of a hash that tell modules apart.
const HASH_CHARS: usize = 12;

#[derive(Debug, Args)]
pub(super) struct RecordsArgs {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// Results of all rooms, newest first
    Results(ResultsArgs),
    /// A player's best scores, by module, leaderboard and group
    Bests {
        /// The player's name
        player: String,
        #[command(flatten)]
        answer: AnswerArgs,
    },
    /// How two players did against each other
    Versus {
        /// A player's name
        first: String,
        /// Another player's name
        second: String,
        #[command(flatten)]
        answer: AnswerArgs,
    },
    /// A leaderboard; without a board's name, which there are
    Leaderboard(BoardArgs),
}

#[derive(Debug, Args)]
struct AnswerArgs {
    /// Print CSV
    #[arg(long)]
    csv: bool,
    /// Most rows, 1 to 100000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=ROWS_MAX))]
    limit: u64,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
struct ResultsArgs {
    /// Of this player
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    player: Option<String>,
    /// Of rooms under a module with this name
    #[arg(long, value_name = "NAME")]
    module: Option<String>,
    /// Of rooms that finished under the module with this hash
    #[arg(long, value_name = "HASH")]
    hash: Option<String>,
    /// Of this room
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,
    /// Of this day in UTC: 2026-11-21
    #[arg(long, value_name = "DAY", conflicts_with_all = ["from", "to"])]
    day: Option<String>,
    /// Of rooms that ended on this day or at this time (UTC), or later
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Of rooms that ended before this day or time (UTC)
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// With this outcome: won, lost, red_light
    #[arg(long, value_name = "WORD")]
    outcome: Option<String>,
    /// With this value in the result's or the player's data: car=mx5. Up to four times
    #[arg(long, value_name = "FIELD=VALUE", value_parser = pair)]
    data: Vec<(String, String)>,
    #[command(flatten)]
    answer: AnswerArgs,
}

#[derive(Debug, Args)]
struct BoardArgs {
    /// Name of the module
    module: Option<String>,
    /// Name of the leaderboard
    #[arg(requires = "module")]
    board: Option<String>,
    /// The group, a value for each field by which the board is divided: class=12.5
    #[arg(long, value_name = "FIELD=VALUE", value_parser = pair)]
    group: Vec<(String, String)>,
    /// Hash of the module [default: the one of this name that was last loaded]
    #[arg(long, value_name = "HASH")]
    hash: Option<String>,
    #[command(flatten)]
    answer: AnswerArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (field, value) = text.split_once('=').ok_or("a field, `=` and a value are needed: car=mx5")?;
    Ok((field.to_owned(), value.to_owned()))
}

/// What is asked, and how the answer is shown.
struct Asked {
    path: Vec<String>,
    query: Vec<(String, String)>,
    /// The name of the list in the answer.
    list: &'static str,
    columns: &'static [(&'static str, &'static str)],
    answer: AnswerArgs,
}

const RESULTS: &[(&str, &str)] = &[
    ("ended (UTC)", "/ended_at"),
    ("player", "/name"),
    ("place", "/place"),
    ("outcome", "/outcome"),
    ("module", "/module"),
    ("hash", "/hash"),
    ("mixed", "/mixed"),
    ("room", "/room"),
];
const BESTS: &[(&str, &str)] = &[
    ("module", "/module"),
    ("version", "/version"),
    ("board", "/board"),
    ("group", "/group"),
    ("score", "/score"),
    ("ended (UTC)", "/ended_at"),
    ("room", "/room"),
];
const VERSUS: &[(&str, &str)] = &[
    ("ended (UTC)", "/ended_at"),
    ("winner", "/winner"),
    ("first", "/places/0"),
    ("second", "/places/1"),
    ("module", "/module"),
    ("mixed", "/mixed"),
    ("room", "/room"),
];
const ENTRIES: &[(&str, &str)] =
    &[("place", "/place"), ("player", "/name"), ("score", "/score"), ("ended (UTC)", "/ended_at"), ("room", "/room")];
const BOARDS: &[(&str, &str)] = &[
    ("module", "/module"),
    ("version", "/version"),
    ("hash", "/hash"),
    ("newest", "/newest"),
    ("board", "/board"),
    ("best", "/best"),
    ("score", "/score"),
    ("by", "/group_by"),
];

pub(super) async fn records(args: RecordsArgs, as_json: bool) -> anyhow::Result<()> {
    let asked = asked(args.question);
    if asked.answer.csv && as_json {
        bail!("--csv and --json are two forms of the same answer; ask for one of them");
    }
    let api = asked.answer.host.api()?;
    if asked.answer.csv {
        return csv(&api, &asked).await;
    }
    let answer = all_pages(&api, &asked).await?;
    if as_json {
        say(&answer);
        return Ok(());
    }
    let rows = answer.get(asked.list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    heading(&asked, &answer, rows);
    say(table(asked.columns, rows));
    if answer.get("next").is_some_and(|next| !next.is_null()) {
        say(format_args!("… and more; ask for them with --limit"));
    }
    Ok(())
}

fn asked(question: Question) -> Asked {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match question {
        Question::Results(args) => {
            let ResultsArgs { player, module, hash, room, day, from, to, outcome, data, answer } = args;
            let named = [
                ("player", player),
                ("module", module),
                ("hash", hash),
                ("room", room),
                ("day", day),
                ("from", from),
                ("to", to),
                ("outcome", outcome),
            ];
            let mut query: Vec<_> =
                named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
            query.extend(data.into_iter().map(|(field, value)| (format!("data.{field}"), value)));
            Asked { path: words(&["results"]), query, list: "results", columns: RESULTS, answer }
        }
        Question::Bests { player, answer } => {
            let path = words(&["players", &player, "bests"]);
            Asked { path, query: Vec::new(), list: "bests", columns: BESTS, answer }
        }
        Question::Versus { first, second, answer } => {
            let query = vec![("player".to_owned(), first), ("player".to_owned(), second)];
            Asked { path: words(&["versus"]), query, list: "rooms", columns: VERSUS, answer }
        }
        Question::Leaderboard(BoardArgs { module, board, group, hash, answer }) => {
            let mut query: Vec<_> = group.into_iter().map(|(field, value)| (format!("group.{field}"), value)).collect();
            query.extend(hash.map(|hash| ("hash".to_owned(), hash)));
            match (module, board) {
                (Some(module), Some(board)) => {
                    let path = words(&["leaderboards", &module, &board]);
                    Asked { path, query, list: "entries", columns: ENTRIES, answer }
                }
                (module, _) => {
                    query.extend(module.map(|module| ("module".to_owned(), module)));
                    Asked { path: words(&["leaderboards"]), query, list: "leaderboards", columns: BOARDS, answer }
                }
            }
        }
    }
}

/// The address of the first page, from the host's root, with every character that needs it encoded.
fn address(asked: &Asked, format: &str) -> anyhow::Result<String> {
    // A step to the folder above, however it is encoded: no program that follows the rules of URLs sends it as a name.
    if let Some(name) = asked.path.iter().find(|name| matches!(name.as_str(), "." | "..")) {
        bail!(
            "{name:?} cannot be asked for: in an address it is no name; look for it with `holeshot records results --player`"
        );
    }
    let mut url = reqwest::Url::parse("http://host/").context("no address can be made")?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push("api").extend(&asked.path);
    }
    url.query_pairs_mut()
        .extend_pairs(&asked.query)
        .append_pair("limit", &asked.answer.limit.min(PAGE_ROWS_MAX as u64).to_string())
        .append_pair("format", format);
    Ok(format!("{}?{}", url.path(), url.query().unwrap_or_default()))
}

/// All pages in one answer: the first, with the rows of the others in its list, and the last one's `next`.
async fn all_pages(api: &Api, asked: &Asked) -> anyhow::Result<Value> {
    let limit = usize::try_from(asked.answer.limit).unwrap_or(usize::MAX);
    let mut next = Some(address(asked, "json")?);
    let mut whole: Option<Value> = None;
    let mut rows: Vec<Value> = Vec::new();
    while let Some(path) = next.take() {
        let (bytes, link) = api.page(&path).await?;
        let mut page: Value = serde_json::from_slice(&bytes).context("the host's answer is not JSON")?;
        let Some(list) = page.get_mut(asked.list).and_then(Value::as_array_mut) else {
            bail!("the host's answer has no list `{}`; is it a Holeshot host of this version?", asked.list);
        };
        rows.append(list);
        // A row too many may have come with the last page; the next page begins behind it all the same.
        if rows.len() < limit {
            next = link;
        }
        let last = page.get("next").cloned().unwrap_or_default();
        match &mut whole {
            None => whole = Some(page),
            Some(whole) => {
                if let Some(whole) = whole.as_object_mut() {
                    whole.insert("next".to_owned(), last);
                }
            }
        }
    }
    let mut whole = whole.unwrap_or_default();
    if let Some(whole) = whole.as_object_mut() {
        whole.insert(asked.list.to_owned(), rows.into());
    }
    Ok(whole)
}

/// The pages as they come, with the header of the first alone.
async fn csv(api: &Api, asked: &Asked) -> anyhow::Result<()> {
    let mut next = Some(address(asked, "csv")?);
    let mut left = usize::try_from(asked.answer.limit).unwrap_or(usize::MAX);
    let mut out = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(std::io::stdout().lock());
    let mut is_first = true;
    while let Some(path) = next.take().filter(|_| left > 0) {
        let (bytes, link) = api.page(&path).await?;
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes.as_slice());
        for (at, record) in reader.records().enumerate() {
            let record = record.context("the host's answer is not CSV")?;
            if at == 0 && !is_first {
                continue;
            }
            // Nobody may be reading any more.
            if (at > 0 && left == 0) || out.write_record(&record).is_err() {
                return Ok(());
            }
            left -= usize::from(at > 0);
        }
        is_first = false;
        next = link;
    }
    let _nobody_reads = out.flush();
    Ok(())
}

/// What is said before the table.
fn heading(asked: &Asked, answer: &Value, rows: &[Value]) {
    let cell = |pointer: &str| cell(answer.pointer(pointer).unwrap_or(&Value::Null));
    match asked.list {
        "rooms" => {
            say(format_args!(
                "{} {} : {} {}, {} undecided, of {} rooms{}",
                cell("/players/0/name"),
                cell("/players/0/wins"),
                cell("/players/1/wins"),
                cell("/players/1/name"),
                cell("/undecided"),
                cell("/finished"),
                if answer.get("complete") == Some(&Value::Bool(false)) { ", the latest only" } else { "" }
            ));
            for player in answer.get("players").and_then(Value::as_array).into_iter().flatten() {
                let bests = player.get("bests").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                if !bests.is_empty() {
                    say(format_args!("\nbest of {}:", self::cell(player.get("name").unwrap_or(&Value::Null))));
                    say(table(BESTS, bests));
                }
            }
            say("");
        }
        "entries" => {
            let group = answer.get("group").map(Value::to_string).unwrap_or_default();
            say(format_args!(
                "{} of {} {} ({}), {} {}, {}",
                cell("/board"),
                cell("/module"),
                cell("/version"),
                cell("/hash"),
                cell("/best"),
                cell("/score"),
                plain(&group)
            ));
        }
        "leaderboards" => {
            for row in rows {
                for group in row.get("groups").and_then(Value::as_array).into_iter().flatten() {
                    let fields = group.as_object().into_iter().flatten();
                    let flags: Vec<String> =
                        fields.map(|(field, value)| format!(" --group {field}={}", self::cell(value))).collect();
                    let name = |field: &str| self::cell(row.get(field).unwrap_or(&Value::Null));
                    if row.get("newest") == Some(&Value::Bool(true)) {
                        let (module, board) = (name("module"), name("board"));
                        say(format_args!("holeshot records leaderboard {module} {board}{}", plain(&flags.concat())));
                    }
                }
            }
        }
        _ => {}
    }
}

/// Rows under each other, each column as wide as its widest cell.
fn table(columns: &[(&str, &str)], rows: &[Value]) -> String {
    if rows.is_empty() {
        return "nothing on record".to_owned();
    }
    let header = columns.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>();
    let of_row = |row: &Value| {
        let cells = columns.iter().map(|(title, pointer)| {
            let cell = cell(row.pointer(pointer).unwrap_or(&Value::Null));
            let chars_max = match *title {
                "ended (UTC)" => TIME_CHARS,
                "hash" => HASH_CHARS,
                _ => CELL_CHARS_MAX,
            };
            cell.chars().take(chars_max).collect::<String>()
        });
        cells.collect::<Vec<_>>()
    };
    let lines: Vec<Vec<String>> = std::iter::once(header).chain(rows.iter().map(of_row)).collect();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let text: Vec<String> = lines
        .iter()
        .map(|line| {
            let cells: Vec<String> =
                line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect();
    text.join("\n")
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain(text),
        Value::Bool(truth) => if *truth { "yes" } else { "" }.to_owned(),
        other => plain(&other.to_string()),
    }
}

/// A text that does nothing to a terminal: a player chose it.
fn plain(text: &str) -> String {
    let is_harmful = |c: char| {
        c.is_control()
            || ('\u{200e}'..='\u{200f}').contains(&c)
            || ('\u{202a}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    text.chars().map(|c| if is_harmful(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_a_name_moves_no_cursor() {
        let rows = [
            json!({ "place": 1, "name": "Ada\u{1b}[2J\u{202e}", "score": 11.5, "ended_at": "2026-11-21T18:00:00.123456Z", "room": "r" }),
            json!({ "place": 12, "name": "x".repeat(60), "score": -3, "ended_at": "2026-11-21T18:00:01.000000Z", "room": "room-2" }),
        ];
        let text = table(ENTRIES, &rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("place  player "), "{text}");
        assert!(lines[1].starts_with("1      Ada\u{fffd}[2J\u{fffd} ") && !text.contains('\u{1b}'), "{text}");
        assert!(lines[1].ends_with("11.5   2026-11-21T18:00:00  r"), "{text}");
        assert!(lines[2].starts_with(&format!("12     {}  -3", "x".repeat(40))), "{text}");
        assert_eq!(table(ENTRIES, &[]), "nothing on record");
    }

    #[test]
    fn names_are_parts_of_addresses_whatever_they_are() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            records: RecordsArgs,
            #[arg(long, global = true)]
            json: bool,
        }
        let address_of = |args: &[&str]| {
            let line = <Line as clap::Parser>::try_parse_from([&["records"], args].concat()).unwrap();
            assert!(!line.json);
            address(&asked(line.records.question), "json").unwrap()
        };
        assert_eq!(
            address_of(&["results", "--player", "A&B c", "--data", "car=m=5", "--limit", "900"]),
            "/api/results?player=A%26B+c&data.car=m%3D5&limit=200&format=json"
        );
        assert_eq!(address_of(&["bests", "../é?"]), "/api/players/..%2F%C3%A9%3F/bests?limit=50&format=json");
        assert_eq!(address_of(&["versus", "a", "b"]), "/api/versus?player=a&player=b&limit=50&format=json");
        assert_eq!(address_of(&["leaderboard"]), "/api/leaderboards?limit=50&format=json");
        assert_eq!(
            address_of(&["leaderboard", "g", "b", "--group", "class=1", "--limit", "3"]),
            "/api/leaderboards/g/b?group.class=1&limit=3&format=json"
        );
    }
}
