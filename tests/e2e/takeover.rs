//! A race over a bad network (`lossy.rs`: 10 % of datagrams lost each way, 80 ms each way), in the middle of which one driver's connection is cut and comes
//! back, or another client takes over with a newer ticket and goes on driving. The race finishes, both get their slips, no frame is missing, and the
//! other driver's slip is the one that it would have had.
//!
//! How that is compared: two races over a real network never have the same inputs in the same frames, so the race itself is the measure, by its journal. It
//! is proven first: run again, every output and state is what it was. Then the undisturbed driver's inputs, frame by frame as they were, go into fresh
//! rules with the same setup; the other lane has the inputs that it had up to the disturbance, and from then on those of a driver that sees every
//! frame at once. What the rules say of the undisturbed lane must be the same in both, to the last digit.

use std::sync::Arc;

use drag_race::{DragRace, Driver};
use holeshot::rules::{DRAG_RACE_WASM, Engine, EngineSettings, Module, ModuleHash, ModuleStore, NativeProgram};
use holeshot_abi::{Action, Change, InputStatus, Item, OutputReader, PlayerInput, TickReader, TickRecord};
use holeshot_client::{ByeCode, Client, ConnectOptions, Event, Incoming};
use holeshot_room::Program;
use holeshot_room::journal::{Entry, Journal, Recorded};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{Grant, Host, SOON, compiled, run};
use crate::journal::{closed_journal, download};
use crate::lossy::Lossy;
use crate::proof::{prove, results};

const NAMES: [&str; 2] = ["Ada", "Ben"];
const CARS: [&str; 2] = ["gtr", "hellcat"];
/// The event of Ada's lane at which it happens: she is at full throttle, with gears to come.
const DISTURBED_AT: &str = "sixty_foot";

/// How Ada is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    /// Her connection is cut; her client comes back by itself.
    Cut,
    /// Another client takes over with a newer ticket.
    Takeover,
}

/// A driver at the wheel of a client.
struct Seat {
    client: Client,
    driver: Driver,
    lane: usize,
    events: Vec<Event>,
    came_back: usize,
}

impl Seat {
    async fn take(grant: &Grant, network: &Lossy, seed: u64, after: Option<u64>) -> Self {
        let lane = usize::from(grant.player);
        let options = ConnectOptions::udp(network.ws_url(), &grant.ticket, grant.key());
        let options = match after {
            Some(_) => ConnectOptions { after, ..options },
            None => options,
        };
        let client = Client::connect(options).await.unwrap();
        let driver = Driver::new(CARS[lane], lane, 0.9, seed).unwrap();
        Self { client, driver, lane, events: Vec::new(), came_back: 0 }
    }

    /// Drives until an event that is waited for, or the end of the race.
    async fn drive(&mut self, until: impl Fn(&Event, usize) -> bool) {
        loop {
            match timeout(SOON, self.client.next()).await.expect("a race goes on").unwrap() {
                Incoming::Snapshot(snapshot) => {
                    let seen: drag_race::Snapshot = postcard::from_bytes(&snapshot.bytes).unwrap();
                    self.driver.set_delay_ms(self.client.stats().lead_frames * 20);
                    let input = self.driver.drive(&seen);
                    self.client.send_input(&postcard::to_allocvec(&input).unwrap()).unwrap();
                }
                Incoming::Event(event) => {
                    self.events.push(event);
                    let event = self.events.last().unwrap();
                    if event.name == "finished" || until(event, self.lane) {
                        return;
                    }
                }
                Incoming::Carrier(_) | Incoming::Reconnecting { .. } => {}
                Incoming::Reconnected(welcome) => {
                    assert!(welcome.resumed && welcome.player == Some(self.lane as u16), "{welcome:?}");
                    self.came_back += 1;
                }
                other => panic!("lane {}: {other:?}", self.lane),
            }
        }
    }
}

fn is_disturbed_at(event: &Event, lane: usize) -> bool {
    let lanes = event.data["lanes"].as_array();
    event.name == DISTURBED_AT && lanes.is_some_and(|lanes| lanes.iter().any(|one| one["lane"] == json!(lane)))
}

/// Ada's part, up to the end of the race.
async fn disturbed(host: &Host, grant: Grant, network: &Lossy, seed: u64, disturbance: Disturbance) -> Vec<Event> {
    let mut ada = Seat::take(&grant, network, seed, None).await;
    ada.client.ready().await.unwrap();
    ada.drive(is_disturbed_at).await;
    match disturbance {
        Disturbance::Cut => {
            network.cut();
            ada.drive(|_, _| false).await;
            assert_eq!((ada.came_back, ada.client.stats().reconnects), (1, 1));
            ada.events
        }
        Disturbance::Takeover => {
            let newer = host.join(&grant.room, "Ada").await;
            let after = ada.events.last().map(|event| event.seq);
            let mut other = Seat::take(&newer, network, seed, after).await;
            assert!(other.client.welcome().resumed);
            // The same driver in another client: what it knows of gears and of the tree goes with it.
            std::mem::swap(&mut other.driver, &mut ada.driver);
            let displaced = async {
                loop {
                    match timeout(SOON, ada.client.next()).await.expect("a goodbye").unwrap() {
                        Incoming::Bye { code, .. } => return code,
                        Incoming::Disconnected { error } => panic!("{error}"),
                        _ => {}
                    }
                }
            };
            let (code, ()) = tokio::join!(displaced, other.drive(|_, _| false));
            assert_eq!(code, ByeCode::Replaced);
            // A client that was displaced does not come back. A snapshot from before may still be handed out.
            while let Some(rest) = ada.client.next().await {
                assert!(matches!(rest, Incoming::Snapshot(_)), "{rest:?}");
            }
            let mut events = ada.events;
            events.extend(other.events);
            events
        }
    }
}

/// What the rules say if Ada's lane is driven by somebody else, undisturbed, from `frame` on: Ben's inputs as they were.
fn without_disturbance(journal: &Journal, frame: u32, seed: u64) -> Value {
    let setup = journal.setup().clone();
    let program = NativeProgram::<DragRace>::new(setup.clone(), ModuleHash::of(DRAG_RACE_WASM));
    let mut rules = program.begin().unwrap();
    let mut driver = Driver::new(CARS[0], 0, 0.9, seed).unwrap();
    let (mut of_ada, mut of_ben): (Vec<u8>, Vec<u8>) = Default::default();
    let mut records = Vec::new();
    let mut entries = journal.entries();
    while let Some(entry) = entries.next() {
        if let Entry::Frame { record, .. } = entry {
            records.push(record.to_vec());
        }
    }
    let stride = program.manifest().input_stride_bytes();
    for number in 0u32.. {
        let mut record = TickRecord::default();
        record.begin(number, 2, stride);
        let was = records.get(number as usize).map(|record| TickReader::read(record).unwrap());
        if let Some(was) = &was {
            let inputs: Vec<PlayerInput<'_>> = was.inputs().collect();
            if number < frame {
                assert!(record.set_input(0, inputs[0]));
            }
            assert!(record.set_input(1, inputs[1]));
            of_ben = inputs[1].bytes.to_vec();
        } else {
            // Ada was not as quick as she could be, and the race had ended before.
            assert!(record.set_input(1, PlayerInput { status: InputStatus::Repeated, age_frames: 1, bytes: &of_ben }));
        }
        if number >= frame {
            assert!(record.set_input(0, PlayerInput { status: InputStatus::Fresh, age_frames: 0, bytes: &of_ada }));
        }
        let changes: Vec<Change> = was.iter().flat_map(|was| was.changes()).collect();
        let actions: Vec<Action<'_>> = was.iter().flat_map(|was| was.actions()).collect();
        assert!(changes.into_iter().all(|change| record.push_change(change)));
        assert!(actions.into_iter().all(|action| record.push_action(action)));
        let output = rules.tick(record.bytes()).unwrap().to_vec();
        for item in OutputReader::read(&output, 2).unwrap().items() {
            match item {
                Item::SharedSnapshot(bytes) => {
                    let seen: drag_race::Snapshot = postcard::from_bytes(bytes).unwrap();
                    of_ada = postcard::to_allocvec(&driver.drive(&seen)).unwrap();
                }
                Item::Results(json) => return serde_json::from_str(json).unwrap(),
                _ => {}
            }
        }
    }
    unreachable!("a race ends")
}

/// What a lane's result says of that lane alone.
fn slip(results: &Value, lane: u64) -> Value {
    let all = results.as_array().unwrap_or_else(|| panic!("no results: {results}"));
    let mut data = all.iter().find(|result| result["player"] == json!(lane)).unwrap()["data"].clone();
    // Who won, and by how much, is said of both lanes.
    for of_both in ["margin_s", "holeshot"] {
        data.as_object_mut().unwrap().remove(of_both);
    }
    data
}

async fn a_race(network: [u8; 2], seed: u64, disturbance: Disturbance) {
    println!("{disturbance:?}: seed {seed}");
    let host = Host::start_with(|settings| settings.linger_s = Some(2)).await;
    let players = [0, 1].map(|lane| json!({ "name": NAMES[lane], "data": { "car": CARS[lane] } }));
    let room = host.open_room(&json!({ "players": players, "options": { "tree": "pro" }, "seed": seed })).await;
    let addresses = host.server().addresses().clone();
    let of_ada = Lossy::start(network[0], addresses.http, addresses.udp, seed).await;
    let of_ben = Lossy::start(network[1], addresses.http, addresses.udp, seed + 1).await;
    let (ada, ben) = (host.join(&room, "Ada").await, host.join(&room, "Ben").await);
    let undisturbed = async {
        let mut ben = Seat::take(&ben, &of_ben, seed + 1, None).await;
        ben.client.ready().await.unwrap();
        ben.drive(|_, _| false).await;
        assert_eq!(ben.client.stats().reconnects, 0);
        ben.events
    };
    let (events, of_other) = tokio::join!(disturbed(&host, ada, &of_ada, seed, disturbance), undisturbed);
    for (name, network) in [("Ada", &of_ada), ("Ben", &of_ben)] {
        println!("{disturbance:?}: {name}: {}", network.told());
    }
    // A client whose datagrams are too often lost goes on over its WebSocket, where what is lost comes late.
    let disturbed = |network: &Lossy| {
        let counts = &network.counts;
        [&counts.datagrams_lost, &counts.pieces_lost].map(|count| count.load(std::sync::atomic::Ordering::Relaxed))
    };
    for network in [&of_ada, &of_ben] {
        assert!(disturbed(network).into_iter().sum::<u64>() > 20, "the network was better than it should be");
    }

    // Every public event once and in order, also to the client that came later.
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(events, of_other);
    assert!(!events.iter().any(|event| event.name == "player_left" || event.name == "aborted"), "{events:?}");
    let disturbed_at = events.iter().find(|event| is_disturbed_at(event, 0)).unwrap().frame.unwrap();

    closed_journal(&host, &room).await;
    let journal = Journal::read(&download(&host, &room).await).unwrap();
    host.stop().await;
    let mut frames = 0;
    let mut entries = journal.entries();
    while let Some(entry) = entries.next() {
        if let Entry::Frame { frame, ran, .. } = entry {
            assert!(frame == frames && matches!(ran, Recorded::Stepped(_)), "frame {frame} after {frames}: {ran:?}");
            frames += 1;
        }
    }
    let finished = events.last().unwrap();
    assert_eq!((finished.name.as_str(), &finished.data["frames"]), ("finished", &json!(frames)));
    assert!(disturbed_at + 100 < frames, "disturbed in frame {disturbed_at} of {frames}");
    let store = ModuleStore::new(Engine::new(EngineSettings::default()).unwrap(), Some(compiled().to_owned())).unwrap();
    let module: Arc<Module> = store.load(DRAG_RACE_WASM).unwrap();
    prove("the race", &journal, &[module]);

    let raced = results(&journal).unwrap();
    assert_eq!(raced, finished.data["results"]);
    for lane in 0..2 {
        let slip = slip(&raced, lane);
        assert!(slip["quarter_mile_s"].is_number() && slip["reaction_s"].is_number(), "lane {lane}: {slip}");
    }
    let without = without_disturbance(&journal, disturbed_at, seed);
    assert_eq!(slip(&raced, 1).to_string(), slip(&without, 1).to_string(), "Ben's slip");
    // The comparison sees a lane that is driven otherwise: Ada's slip is another one.
    let elapsed = |results: &Value| slip(results, 0)["quarter_mile_s"].clone();
    assert_ne!(elapsed(&raced), elapsed(&without), "the comparison is blind");
    println!(
        "{disturbance:?} in frame {disturbed_at} of {frames}: Ada {} s; Ben {} s, with and without it",
        elapsed(&raced),
        slip(&raced, 1)["quarter_mile_s"]
    );
}

#[test]
fn a_cut_and_a_takeover_in_the_middle_of_a_race_keep_the_time_slips() {
    run(150, async {
        let mut seed = [0; 2];
        getrandom::fill(&mut seed).unwrap();
        let seed = u64::from(u16::from_le_bytes(seed));
        tokio::join!(a_race([2, 3], seed, Disturbance::Cut), a_race([4, 5], seed + 10, Disturbance::Takeover),);
    });
}
