//! The figures of a host: the page is what its format says, every name on it is documented, and what it counts is what the test did and what
//! the HTTP interface says. And the limits: a host that may not have more rooms says so and goes on.

use std::collections::{BTreeMap, BTreeSet};

use holeshot::api::Api;
use holeshot::bots::{self, Bot};
use holeshot::rules::ModuleHash;
use serde_json::json;

use crate::harness::{Host, SOON, announce_errors, eventually, run};
use crate::modules_made::{SHORT, Tally, short};
use crate::peer::Peer;

// ---- a strict reader of the format ----

/// A page: OpenMetrics 1.0 text, read by the letter of its specification.
#[derive(Debug, Default)]
struct Page {
    /// Type and unit of each family, by name.
    families: BTreeMap<String, (String, Option<String>)>,
    /// Each sample by name and labels.
    samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Labels as they are in braces: `a="1",b="2"`, with `\\`, `\"` and `\n` in values.
fn read_labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").ok_or(format!("no value: {rest}"))?;
        if !is_name(name) {
            return Err(format!("not a label: {name}"));
        }
        let (mut value, mut chars, mut end) = (String::new(), after.char_indices(), None);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = Some(at + 1);
                    break;
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c @ ('\\' | '"'))) => value.push(c),
                    other => return Err(format!("not an escape: {other:?}")),
                },
                '\n' => return Err("a line ends in a label".into()),
                c => value.push(c),
            }
        }
        rest = &after[end.ok_or("a label without an end")?..];
        if labels.insert(name.to_owned(), value).is_some() {
            return Err(format!("twice: {name}"));
        }
        match rest.strip_prefix(',') {
            Some("") => return Err("a comma at the end".into()),
            Some(more) => rest = more,
            None if rest.is_empty() => {}
            None => return Err(format!("no comma: {rest}")),
        }
    }
    Ok(labels)
}

impl Page {
    fn read(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("it does not end with # EOF")?;
        let mut page = Self::default();
        // The family that is being read: its name, and whether samples have come.
        let (mut current, mut has_samples) = (String::new(), false);
        let mut described: BTreeSet<(String, String)> = BTreeSet::new();
        for line in body.split_terminator('\n') {
            let wrong = |what: &str| format!("{what}: {line}");
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (keyword, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                let rest = words.next().unwrap_or_default();
                if name != current {
                    if page.families.contains_key(name) {
                        return Err(wrong("a family in two pieces"));
                    }
                    (current, has_samples) = (name.to_owned(), false);
                    page.families.insert(name.to_owned(), (String::new(), None));
                }
                if !is_name(name) || has_samples || !described.insert((keyword.to_owned(), name.to_owned())) {
                    return Err(wrong("a description out of its place"));
                }
                let family = page.families.get_mut(name).unwrap();
                match keyword {
                    "HELP" if rest.len() > 5 && rest.ends_with('.') => {}
                    "TYPE" if ["counter", "gauge", "histogram", "info"].contains(&rest) => family.0 = rest.to_owned(),
                    "UNIT" if name.ends_with(&format!("_{rest}")) => family.1 = Some(rest.to_owned()),
                    _ => return Err(wrong("not a description")),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').ok_or_else(|| wrong("no value"))?;
            let value: f64 = value.parse().map_err(|_| wrong("not a number"))?;
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => {
                    let labels = labels.strip_suffix('}').ok_or_else(|| wrong("no brace"))?;
                    (name, read_labels(labels).map_err(|error| wrong(&error))?)
                }
                None => (series, BTreeMap::new()),
            };
            let kind = page.families.get(&current).map(|(kind, _)| kind.as_str()).unwrap_or_default();
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                "gauge" => &[""],
                _ => return Err(wrong("a sample without a type")),
            };
            let suffix = name.strip_prefix(current.as_str()).ok_or_else(|| wrong("a sample of another family"))?;
            if !suffixes.contains(&suffix) || !is_name(name) {
                return Err(wrong("not a sample of its type"));
            }
            if labels.contains_key("le") != (suffix == "_bucket") || kind != "gauge" && (value.is_nan() || value < 0.0)
            {
                return Err(wrong("not a value of its type"));
            }
            has_samples = true;
            if page.samples.insert((name.to_owned(), labels), value).is_some() {
                return Err(wrong("a series twice"));
            }
        }
        for name in page.families.keys() {
            for keyword in ["HELP", "TYPE"] {
                if !described.contains(&(keyword.to_owned(), name.clone())) {
                    return Err(format!("{name} has no {keyword}"));
                }
            }
        }
        page.check_histograms()?;
        Ok(page)
    }

    /// The ranges of a histogram count up to the number of all its values.
    fn check_histograms(&self) -> Result<(), String> {
        for (family, _) in self.families.iter().filter(|(_, (kind, _))| kind == "histogram") {
            let mut ranges: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
            for ((_, labels), count) in self.samples.iter().filter(|((name, _), _)| *name == format!("{family}_bucket"))
            {
                let mut labels = labels.clone();
                let end = match labels.remove("le").unwrap().as_str() {
                    "+Inf" => f64::INFINITY,
                    end => end.parse().map_err(|_| format!("{family}: le={end}"))?,
                };
                ranges.entry(labels).or_default().push((end, *count));
            }
            for (labels, mut ranges) in ranges {
                ranges.sort_by(|a, b| a.0.total_cmp(&b.0));
                let counts: Vec<f64> = ranges.iter().map(|(_, count)| *count).collect();
                let all = self.samples.get(&(format!("{family}_count"), labels.clone()));
                let sum = self.samples.get(&(format!("{family}_sum"), labels.clone()));
                let ends_well = ranges.last().is_some_and(|(end, count)| end.is_infinite() && Some(count) == all);
                if !counts.is_sorted() || !ends_well || sum.is_none() {
                    return Err(format!("{family} {labels:?}: {ranges:?}, of {all:?}"));
                }
            }
        }
        Ok(())
    }

    /// The samples of a name whose labels have these values.
    fn all(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let fits = |found: &BTreeMap<String, String>| {
            labels.iter().all(|(label, value)| found.get(*label).is_some_and(|found| found == value))
        };
        self.samples.iter().filter(|((found, of), _)| found == name && fits(of)).map(|(_, value)| *value).collect()
    }

    #[track_caller]
    fn one(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.all(name, labels);
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0]
    }
}

async fn page(host: &Host) -> Page {
    let response = host.http().get(host.url("/metrics")).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    let text = response.text().await.unwrap();
    Page::read(&text).unwrap_or_else(|error| panic!("{error}\nin\n{text}"))
}

/// A page as wished; pages are up to half a second old.
async fn page_with(host: &Host, what: &str, wished: impl Fn(&Page) -> bool) -> Page {
    eventually(what, SOON, async || {
        let page = page(host).await;
        if wished(&page) { Ok(page) } else { Err(format!("{:#?}", page.samples)) }
    })
    .await
}

#[test]
fn the_reader_takes_no_page_that_breaks_the_format() {
    let good = "# HELP a_total_things What a is.\n# TYPE a_total_things counter\na_total_things_total{x=\"\\\"1\\\\\\n\"} 1\n# EOF\n";
    let page = Page::read(good).unwrap();
    assert_eq!(page.one("a_total_things_total", &[("x", "\"1\\\n")]), 1.0);
    let head = "# HELP a What a is.\n# TYPE a gauge\n";
    let histogram = "# HELP a What a is.\n# TYPE a histogram\na_sum 1\n";
    for bad in [
        good.replace("# EOF\n", ""),
        good.replace("# EOF\n", "# EOF\n\n"),
        good.replace("_total{", "{"),
        format!("{head}a 1\na 1\n# EOF\n"),
        format!("{head}a one\n# EOF\n"),
        format!("{head}\n# EOF\n"),
        format!("{head}a{{x=\"1\"x=\"2\"}} 1\n# EOF\n"),
        format!("{head}a{{x=\"1\",x=\"2\"}} 1\n# EOF\n"),
        format!("{head}a{{x=\"1\",}} 1\n# EOF\n"),
        format!("{head}a{{x=\"1}} 1\n# EOF\n"),
        format!("{head}a{{1=\"1\"}} 1\n# EOF\n"),
        format!("{head}b 1\n# EOF\n"),
        format!("{head}a 1\n{}# EOF\n", head.replace(" a ", " b ") + head),
        format!("{head}# UNIT a seconds\na 1\n# EOF\n"),
        "# TYPE a gauge\na 1\n# EOF\n".to_owned(),
        format!("{histogram}a_count 2\na_bucket{{le=\"1.0\"}} 2\na_bucket{{le=\"+Inf\"}} 1\n# EOF\n"),
        format!("{histogram}a_count 2\na_bucket{{le=\"1.0\"}} 2\n# EOF\n"),
    ] {
        assert!(Page::read(&bad).is_err(), "{bad}");
    }
}

// ---- the page ----

/// The table of the documentation: name, type, labels.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let rows = include_str!("../../host/METRICS.md").lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels = cells[2].split(',').map(|label| label.trim().trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        (cells[0].trim_end_matches('`').to_owned(), (cells[1].to_owned(), labels))
    })
    .collect()
}

#[test]
fn every_name_on_the_page_is_documented_and_the_other_way_round() {
    run(60, async {
        let host = Host::start_with_modules(&[short()], |_| {}).await;
        let room = host.open(SHORT, &["Ada"]).await;
        let page = page_with(&host, "the room is on the page", |page| {
            page.all("holeshot_room_ticks_total", &[("room", &room)]).len() == 1
        })
        .await;
        let documented = documented();
        assert!(documented.len() > 60);
        let found: BTreeSet<_> = page.families.keys().collect();
        assert_eq!(found, documented.keys().collect());
        for (name, (kind, labels)) in &documented {
            assert_eq!(&page.families[name].0, kind, "{name}");
            let suffix = match kind.as_str() {
                "counter" => "_total",
                "histogram" => "_count",
                "info" => "_info",
                _ => "",
            };
            let sample = format!("{name}{suffix}");
            let samples: Vec<_> = page.samples.keys().filter(|(found, _)| *found == sample).collect();
            assert!(!samples.is_empty(), "no sample of {name}");
            for (_, found) in samples {
                assert_eq!(&found.keys().cloned().collect::<BTreeSet<_>>(), labels, "{name}");
            }
        }
        // What Prometheus asks of a name: the unit at its end, and lower case.
        for (name, (_, unit)) in &page.families {
            let bytes_or_seconds = ["_bytes", "_seconds"].iter().find(|unit| name.ends_with(*unit));
            assert_eq!(bytes_or_seconds.map(|unit| &unit[1..]), unit.as_deref(), "{name}");
            assert_eq!(*name, name.to_lowercase());
        }
        host.stop().await;
    });
}

/// A room of these rules to its end, by one player. Gives the room.
async fn to_its_end(host: &Host, module: &str, end: &str) -> (String, u64) {
    let room = host.open(module, &["Ada"]).await;
    announce_errors(&room, "");
    let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
    ada.ready().await;
    let frames = ada.event(end).await.data["frames"].as_u64().unwrap();
    (room, frames)
}

#[test]
fn the_page_the_api_and_what_was_done_agree() {
    run(150, async {
        let spins = "(loop $spin (br $spin))";
        let modules = [
            short(),
            Tally::new("traps", 1_000).at_frame(30, "(unreachable)").wasm(),
            Tally::new("hiccups", 60).at_frame(20, spins).wasm(),
            Tally::new("spins", 1_000).since_frame(10, spins).wasm(),
            Tally { each_tick: "(drop (memory.grow (i32.const 1)))".into(), ..Tally::new("grows", 12) }.wasm(),
        ];
        let host = Host::start_with_modules(&modules, |settings| settings.overruns_max = Some(3)).await;
        // A race that runs all the while.
        let api = Api::new(&host.server().url()).unwrap();
        let bot = |name: &str, seed| Bot { name: name.into(), car: "gtr".into(), skill: 0.8, seed, with_udp: true };
        let (eva, finn) = (bot("Eva", 5), bot("Finn", 6));
        let players = [&eva, &finn].map(|bot| json!({ "name": bot.name, "data": { "car": bot.car } }));
        let race = host.open_room(&json!({ "players": players, "options": null, "seed": 5 })).await;
        let (of_eva, of_finn, rooms) =
            tokio::join!(bots::play(&api, &race, &eva, None), bots::play(&api, &race, &finn, None), async {
                let mut rooms = BTreeMap::new();
                for (module, end) in [
                    (SHORT, "finished"),
                    (SHORT, "finished"),
                    ("traps", "aborted"),
                    ("hiccups", "finished"),
                    ("spins", "aborted"),
                    ("grows", "finished"),
                ] {
                    rooms.insert(to_its_end(&host, module, end).await, module);
                }
                rooms
            });
        for report in [of_eva.unwrap(), of_finn.unwrap()] {
            assert_eq!(report.ending, "finished", "{report:?}");
        }
        // Everything is over, and every room still there: their linger is a minute.
        let over = |page: &Page| {
            page.one("holeshot_rooms", &[("phase", "finished")]) == 5.0
                && page.one("holeshot_rooms", &[("phase", "aborted")]) == 2.0
        };
        let page = page_with(&host, "all rooms are over", over).await;

        // Frames: those that the players were told of, and those that the page has.
        let mut by_module: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for ((room, frames), module) in &rooms {
            let labels = [("room", room.as_str()), ("module", *module)];
            let count = |name: &str| page.one(&format!("holeshot_room_{name}_total"), &labels) as u64;
            let (ticks, overruns, faults) = (count("ticks"), count("overruns"), count("faults"));
            let expected = match *module {
                // The frame that failed was not stepped.
                "traps" => (frames - 1, 0, 1),
                "hiccups" => (frames - 1, 1, 0),
                // Three in a row: two are skipped, the third one ends the room.
                "spins" => (10, 2, 1),
                _ => (*frames, 0, 0),
            };
            assert_eq!((ticks, overruns, faults), expected, "{module}");
            assert_eq!((count("retries"), count("rollbacks"), count("swaps")), (0, 0, 0), "{module}");
            let (of_module, failed) = by_module.entry(module).or_default();
            *of_module += ticks;
            *failed += faults;

            // The interface says the same.
            let (_, body) = host.get(&format!("/api/rooms/{room}")).await;
            let budget = &body["open"]["budget"];
            assert_eq!((&budget["ticks"], &budget["overruns"]), (&json!(ticks), &json!(overruns)), "{body:#}");
            let memory = page.one("holeshot_room_memory_bytes", &labels);
            assert_eq!(budget["memory_bytes"].as_f64(), Some(memory), "{module}");
            for (quantile, field) in [("0.5", "p50"), ("0.99", "p99"), ("1", "max")] {
                let of_quantile = [labels[0], ("quantile", quantile)];
                let fuel = page.one("holeshot_room_tick_fuel", &of_quantile);
                assert_eq!(budget["fuel"][field].as_f64(), Some(fuel), "{module} {field}");
                let seconds = page.one("holeshot_room_tick_quantile_seconds", &of_quantile);
                let us = budget["time_us"][field].as_f64().unwrap();
                assert!((us / 1e6 - seconds).abs() < 1e-9 && us > 0.0, "{module} {field}: {us} {seconds}");
            }
            assert!(budget["fuel"]["max"].as_u64() < budget["fuel_max"].as_u64(), "{budget:#}");
            let all_fuel = page.one("holeshot_room_fuel_total", &labels);
            let (most, half) = (budget["fuel"]["max"].as_f64().unwrap(), budget["fuel"]["p50"].as_f64().unwrap());
            assert!(all_fuel <= most * ticks as f64 && half <= most && all_fuel >= most, "{module}: {all_fuel}");
        }
        // A page of memory more in each of 12 ticks.
        let grows = page.one("holeshot_module_memory_max_bytes", &[("module", "grows")]);
        let short_memory = page.one("holeshot_module_memory_max_bytes", &[("module", SHORT)]);
        assert_eq!(grows - short_memory, 12.0 * 65_536.0);

        // Modules: the sum of their rooms.
        let (_, listed) = host.get("/api/modules").await;
        let loaded = listed["loaded"].as_array().unwrap();
        for (module, (ticks, faults)) in &by_module {
            let labels = [("module", *module)];
            assert_eq!(page.one("holeshot_module_ticks_total", &labels) as u64, *ticks, "{module}");
            assert_eq!(page.one("holeshot_module_tick_seconds_count", &labels) as u64, *ticks, "{module}");
            assert_eq!(page.one("holeshot_module_faults_total", &labels) as u64, *faults, "{module}");
            assert_eq!(page.one("holeshot_module_rooms", &labels), if *module == SHORT { 2.0 } else { 1.0 });
            let hash = loaded.iter().find(|entry| entry["name"] == *module).unwrap()["hash"].as_str().unwrap();
            let budget = &listed["budgets"][hash];
            assert_eq!((&budget["ticks"], &budget["faults"]), (&json!(ticks), &json!(faults)), "{listed:#}");
            let limit = page.one("holeshot_module_tick_fuel_limit", &[("module", module), ("hash", &hash[..12])]);
            assert_eq!(budget["fuel_max"].as_f64(), Some(limit));
        }
        let all: f64 = page.all("holeshot_module_ticks_total", &[]).iter().sum();
        // Those of no module: two that ended their rooms, and three that were skipped.
        assert_eq!(page.one("holeshot_shard_ticks_total", &[]), all + 5.0);
        let steps = page.one("holeshot_shard_lateness_seconds_count", &[]);
        assert!(steps > 0.0 && steps <= all + 5.0, "{steps} of {all}");
        assert_eq!(page.one("holeshot_shard_rules_faults_total", &[]), 2.0);

        // What a shard's frame consists of.
        assert_eq!(page.one("holeshot_shard_step_seconds_count", &[]), steps);
        let in_rules: f64 = page.all("holeshot_module_tick_seconds_sum", &[]).iter().sum();
        let in_steps = page.one("holeshot_shard_step_seconds_sum", &[]);
        assert!(in_steps > in_rules * 0.5, "the rules' part of {in_steps} s is {in_rules} s");
        let datagrams = page.one("holeshot_shard_datagrams_received_total", &[]);
        let bytes = page.one("holeshot_shard_received_bytes_total", &[]);
        assert!((datagrams * 30.0..datagrams * 1_201.0).contains(&bytes), "{bytes} bytes in {datagrams} datagrams");
        let (datagrams, bytes) =
            (page.one("holeshot_shard_datagrams_sent_total", &[]), page.one("holeshot_shard_sent_bytes_total", &[]));
        assert!((datagrams * 30.0..datagrams * 1_201.0).contains(&bytes), "{bytes} bytes in {datagrams} datagrams");
        assert!(page.one("holeshot_shard_snapshots_total", &[]) > 100.0);
        assert!(page.one("holeshot_shard_inputs_total", &[]) > 100.0);
        let sessions = page.one("holeshot_shard_sessions_opened_total", &[]);
        assert!(sessions >= page.one("holeshot_shard_sessions", &[]) && sessions >= 7.0, "{sessions}");
        assert!(page.one("holeshot_shard_commands_total", &[]) > sessions);
        let passes = page.one("holeshot_shard_passes_total", &[]);
        assert!((100.0..=passes).contains(&page.one("holeshot_shard_sleeps_total", &[])), "{passes}");
        assert!(page.one("holeshot_shard_public_events_total", &[]) >= 7.0);
        assert!(page.one("holeshot_shard_internal_events_total", &[]) >= 7.0);
        if cfg!(target_os = "linux") {
            let cpu = page.one("holeshot_shard_cpu_seconds_total", &[]);
            assert!(cpu > 0.0 && cpu <= page.one("process_cpu_seconds_total", &[]) + 0.1, "{cpu}");
        }

        // The host: what the test opened.
        assert_eq!(page.one("holeshot_rooms_opened_total", &[]), 7.0);
        assert_eq!(page.all("holeshot_rooms", &[]).iter().sum::<f64>(), 7.0);
        assert_eq!(page.one("holeshot_instances", &[]), 5.0, "rooms whose rules failed have none");
        assert!(page.one("holeshot_shard_datagrams_received_total", &[]) > 100.0);
        assert!(page.one("process_resident_memory_bytes", &[]) > (1 << 20) as f64);
        let events =
            page_with(&host, "every event is stored", |page| page.one("holeshot_events_queued", &[]) == 0.0).await;
        let stored = events.one("holeshot_events_stored_total", &[]);
        assert!(stored > 20.0 && events.one("holeshot_manager_stored_total", &[]) >= stored);
        host.stop().await;
    });
}

#[test]
fn a_swap_that_is_undone_shows_at_the_module_that_failed() {
    run(90, async {
        const GAME: &str = "tally-figures";
        let game = Tally::new(GAME, 600);
        let host = Host::start_with_modules(&[game.wasm()], |_| {}).await;
        let room = host.open(GAME, &["Ada"]).await;
        let mut ada = Peer::enter(&host.join(&room, "Ada").await).await;
        ada.ready().await;
        ada.frame(5).await;
        // Beyond the trial, within the probation.
        let bad = game.clone().after_ticks(140, "(unreachable)").wasm();
        let (status, report) = host.put_module(GAME, "all", bad.clone()).await;
        assert_eq!((status, &report["rooms"][0]["verdict"]), (200, &json!("swapped")), "{report}");
        let hash = |wasm: &[u8]| ModuleHash::of(wasm).to_string()[..12].to_owned();
        let (of_bad, of_good) = (hash(&bad), hash(&game.wasm()));
        let on_probation = page_with(&host, "the new rules run", |page| {
            page.all("holeshot_module_rooms", &[("hash", &of_bad)]) == [1.0]
        })
        .await;
        assert_eq!(on_probation.one("holeshot_module_rooms", &[("hash", &of_good)]), 0.0);
        assert_eq!(on_probation.one("holeshot_module_swaps_total", &[("hash", &of_bad)]), 1.0);
        let undone = ada.event("rules_rolled_back").await;
        let since = undone.data["since_frame"].as_f64().unwrap();
        assert_eq!(ada.event("finished").await.data["frames"], 600);
        let page =
            page_with(&host, "the room is over", |page| page.one("holeshot_rooms", &[("phase", "finished")]) == 1.0)
                .await;
        let counts = |family: &str, labels: &[(&str, &str)]| {
            ["ticks", "overruns", "faults", "retries", "rollbacks", "swaps"]
                .map(|name| page.one(&format!("holeshot_{family}_{name}_total"), labels))
        };
        let failing = undone.data["frame"].as_f64().unwrap();
        assert_eq!(counts("room", &[("room", &room)]), [600.0, 0.0, 1.0, 0.0, 1.0, 1.0]);
        assert_eq!(counts("module", &[("hash", &of_bad)]), [failing - since, 0.0, 1.0, 0.0, 1.0, 1.0]);
        assert_eq!(counts("module", &[("hash", &of_good)]), [600.0 - (failing - since), 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(page.one("holeshot_module_rooms", &[("hash", &of_good)]), 1.0);
        assert_eq!(page.one("holeshot_module_rooms", &[("hash", &of_bad)]), 0.0);
        assert_eq!(page.one("holeshot_module_memory_bytes", &[("hash", &of_bad)]), 0.0);
        host.stop().await;
    });
}

#[test]
fn more_rooms_than_a_page_holds_are_counted() {
    run(120, async {
        let host = Host::start_with_modules(&[short()], |settings| settings.rooms_max = Some(120)).await;
        let mut rooms = Vec::new();
        for _ in 0..103 {
            rooms.push(host.open(SHORT, &["Ada"]).await);
        }
        let page =
            page_with(&host, "all rooms are counted", |page| page.one("holeshot_rooms_left_out", &[]) == 3.0).await;
        assert_eq!(page.all("holeshot_room_ticks_total", &[]).len(), 100);
        assert_eq!(page.one("holeshot_module_rooms", &[("module", SHORT)]), 103.0);
        // The oldest are there, and any other is in the interface.
        assert_eq!(page.all("holeshot_room_ticks_total", &[("room", &rooms[0])]).len(), 1);
        assert_eq!(page.all("holeshot_room_ticks_total", &[("room", &rooms[102])]).len(), 0);
        let (_, body) = host.get(&format!("/api/rooms/{}", rooms[102])).await;
        assert_eq!(body["open"]["budget"]["ticks"], 0, "{body:#}");
        host.stop().await;
    });
}

// ---- limits ----

#[test]
fn a_full_host_refuses_rooms_and_takes_them_again() {
    run(120, async {
        let host = Host::start_with_modules(&[short()], |settings| {
            settings.rooms_max = Some(3);
            settings.linger_s = Some(0);
        })
        .await;
        let request = json!({ "module": SHORT, "players": [{ "name": "Ada" }] });
        let mut rooms = Vec::new();
        for _ in 0..3 {
            rooms.push(host.open_room(&request).await);
        }
        for _ in 0..20 {
            let (status, body) = host.post("/api/rooms", &request).await;
            assert_eq!((status, &body["error"]["code"]), (503, &json!("full")), "{body}");
            assert!(body["error"]["message"].as_str().unwrap().contains("its 3 rooms"), "{body}");
        }
        let page = page_with(&host, "refusals are counted", |page| {
            page.one("holeshot_rooms_refused_total", &[("reason", "full")]) == 20.0
        })
        .await;
        assert_eq!(page.one("holeshot_rooms_limit", &[]), 3.0);
        let mut ada = Peer::enter(&host.join(&rooms[0], "Ada").await).await;
        ada.ready().await;
        ada.event("finished").await;
        eventually("a room is taken again", SOON, async || match host.post("/api/rooms", &request).await {
            (201, _) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        host.stop().await;
    });
}

#[test]
fn a_host_without_memory_for_a_room_says_what_is_missing() {
    run(60, async {
        // A terabyte: more than the machine has.
        let host = Host::start_with_modules(&[short()], |settings| settings.memory_reserve_mib = Some(1 << 20)).await;
        let request = json!({ "module": SHORT, "players": [{ "name": "Ada" }] });
        for _ in 0..3 {
            let (status, body) = host.post("/api/rooms", &request).await;
            assert_eq!((status, &body["error"]["code"]), (503, &json!("full")), "{body}");
            let message = body["error"]["message"].as_str().unwrap();
            let words = ["MiB of memory left", "1048576 MiB are kept in reserve", "`memory_reserve_mib`"];
            assert!(words.iter().all(|words| message.contains(words)), "{message}");
        }
        // A room that was refused has left no place taken, and everything else goes on.
        let (_, listed) = host.get("/api/rooms").await;
        assert_eq!(listed["open"], json!([]));
        let page = page_with(&host, "refusals are counted", |page| {
            page.one("holeshot_rooms_refused_total", &[("reason", "memory")]) == 3.0
        })
        .await;
        assert_eq!(page.one("holeshot_memory_reserve_bytes", &[]), (1u64 << 40) as f64);
        assert_eq!((page.one("holeshot_instances", &[]), page.one("holeshot_rooms_opened_total", &[])), (0.0, 0.0));
        let ceiling = host.server().rooms_ceiling().to_string();
        assert!(ceiling.starts_with("0, by memory"), "{ceiling}");
        host.stop().await;
    });
}
