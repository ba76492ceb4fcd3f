//! End-to-end tests: a whole host with real sockets, the real broker, a real SQLite file and real wasm modules, seen from outside.
//!
//! | file | what it covers |
//! | --- | --- |
//! | `race.rs` | a drag race from ticket to time slip, over datagrams and over the WebSocket alone, and the same results in every place that tells them |
//! | `arena.rs` | the second game: 64 bots over datagrams, other rules while it runs, native rules against wasm |
//! | `lifecycle.rs` | who comes late, leaves, is lost, returns; what each wait of a room leads to; a stop of the host in mid-game |
//! | `doors.rs` | every HTTP route and its description; malformed and hostile requests, tickets, messages and datagrams |
//! | `journal.rs` | journals: written while a race runs, replayed and proven, cut by kills and full disks, deleted when they are old |
//! | `modules.rs` | rules that nobody here wrote in Rust, rules that trap, spin, grow, lie and chatter, and files that are no rules |
//! | `tls.rs` | TLS: handshakes, a new certificate under a running session, bad ones, half-open clients |
//! | `last_words.rs` | refusals, goodbyes and early answers to clients that go on sending |
//! | `limits.rs` | each limit of the doors: what is answered and counted; forwarded addresses |
//! | `datagrams.rs` | a million datagrams of nobody; bytes to and from an address that has not answered |
//! | `metrics.rs` | `/metrics` by the letter of its format, against the API and what was done; rooms refused for want of places or memory |
//! | `rollback.rs` | rules that are swapped a hundred times, fail and are undone under races of real clients, compared with the races without that |
//! | `undo.rs` | rules that are swapped, refused and undone in a room with real wasm and no host, each race compared with itself without the swap |
//! | `misrule_kept.rs` | that the module which misbehaves by order (`tests/modules/misrule`) does so, and is the drag race otherwise |
//! | `determinism.rs` | one journal of inputs through native rules and through wasm, byte by byte |
//! | `modder.rs` | a modder's first minutes: a new crate, built, checked, tested by scenarios, and its rules under a running race |
//! | `node.rs` | the journal of a race through the same wasm in V8 |
//! | `mqtt.rs` | the events as a foreign MQTT client sees them |
//! | `external.rs` | a broker elsewhere, the manager in a process of its own, and their settings |
//! | `asyncapi.rs` | every message that is heard over MQTT against the description that the host serves |
//! | `broker_tls.rs` | a broker elsewhere with TLS, certificates, passwords, rights; both versions of MQTT |
//! | `records.rs` | results, leaderboards, personal bests and head-to-head after real races, the live feed, and questions that are refused |
//! | `report.rs` | the dyno's report in a real browser (`chromium.rs`): pictures in light and dark, wide and narrow; nothing in it that runs or loads |
//! | `faults/` | kill -9 of host, manager and broker in every order; a network, disks, databases and a clock that fail: every event of every finished room exactly once |
//! | `shards.rs` | several shards: datagrams steered and handed over, where rooms go, what a shard that overruns leaves out |
//! | `swap.rs` | changing rules through the doors: who may, which rooms, the watched file, the command, what is remembered |
//! | `takeover.rs` | a race over a bad network (`lossy.rs`), in the middle of which a driver is cut off and comes back, or is taken over from |
//! | `tickets.rs` | every ticket that opens nothing, tickets minted by Node, stolen ones, recorded datagrams; who may open rooms; what is in no log |
//! | `deltas.rs` | snapshots that come as deltas over a bad network, held against whole ones and against the journal |
//! | `watch.rs` | spectators: what they see, and that they have no say |
//! | `backup.rs` | a data folder copied in the middle of races and started elsewhere; backups that are killed, touched, or without space |
//! | `deploy.rs` | the settings and systemd units of `host/deploy` |
//! | `doctor.rs` | what the doctor says of folders and machines that are well, and of those that are not |
//! | `load.rs` | `holeshot load` as a process: a bad network, games opened anew, a journal's inputs, the account of inputs by both sides' counters, bad options |
//! | `budget.rs` | `holeshot budget` as a process: the published example, files that are no models |
//! | `dyno.rs` | `holeshot dyno` as a process: cars of the catalogue, of a file and balanced, files that are no car files, modules that are not of the family |
//! | `dyno.rs` | `holeshot dyno` as a process: cars of the catalogue and of a file, files that are no car files, modules that are not of the family |
//! | `budget.rs` | `holeshot budget` as a process: the published example, files that are no models, a host measured and predicted |
//! | `drain.rs` | a host that is told to stop while games run: what goes on, what ends, what is refused; one, two and three signals |
//! | `command.rs` | the command as a process: signals, exit codes, settings, output |
//!
//! What these tests do not cover, and where that is covered: loss, reordering and delay of datagrams (`host/room/tests`, on a
//! simulated network with a seed); each rule of the room's clock to the microsecond (there, too); each field of each
//! message (`sdk/wire`); each broken module (`host/src/rules/tests.rs`); what the rules decide (`game-logic/*/tests`). Not
//! covered anywhere yet: a network between two machines, other systems than Linux.
//!
//! Every test runs in [`harness::run`]: it has a deadline, and it fails if a thread of the host panicked or the host logged an
//! error that the test had not announced.

mod chromium;
mod harness;
mod lossy;
mod modules_made;
mod peer;
mod proof;

mod arena;
mod asyncapi;
mod backup;
mod bench;
mod broker_tls;
mod budget;
mod command;
mod datagrams;
mod deltas;
mod deploy;
mod determinism;
mod doctor;
mod doors;
mod drain;
mod dyno;
mod external;
mod faults;
mod journal;
mod last_words;
mod lifecycle;
mod limits;
mod load;
mod metrics;
mod misrule_kept;
mod modder;
mod modules;
mod mosquitto;
mod mqtt;
mod node;
mod race;
mod records;
mod report;
mod rollback;
mod shards;
mod swap;
mod takeover;
mod tickets;
mod tls;
mod undo;
mod watch;
