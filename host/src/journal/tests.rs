//! The threads and the folder, with journals of a few made-up ticks. Whole hosts, real races and a disk that is full are in the end-to-end tests.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use holeshot_abi::{InputStatus, Manifest, PlayerInput, PlayerSetup, Setup, TickRecord};
use holeshot_room::journal::{JournalHeader, JournalWriter};
use holeshot_room::{AbortReason, Departure, Outcome, Ran, Usage};

use super::keeper::Work;
use super::read::prefix_of;
use super::*;
use crate::events::{BrokerAccess, BrokerConfig, Events, EventsConfig};
use crate::rules::ModuleHash;

const KEPT: Retention = Retention { days: 30, bytes_max: 1 << 30 };
const DAY: Duration = Duration::from_secs(86_400);

/// A sink whose events stay in its outbox: no broker is there.
async fn events(dir: &Path) -> Events {
    let broker = BrokerConfig::External(BrokerAccess::from_url("mqtt://127.0.0.1:9", None, None).unwrap());
    Events::start(EventsConfig {
        host_id: "test".into(),
        data_dir: dir.join("events"),
        broker,
        outbox: crate::events::Limits::default(),
    })
    .await
    .unwrap()
}

/// Nothing runs that needs a module.
fn none_in_use() -> ModulesInUse {
    Box::new(|_| false)
}

fn header(room: &str, module: ModuleHash) -> JournalHeader {
    let setup = Setup {
        seed: 7,
        tick_hz: 50,
        options: String::new(),
        players: vec![PlayerSetup { name: "Ada".into(), data: String::new() }],
    };
    let mut record = Vec::new();
    setup.write(&mut record).unwrap();
    let manifest = serde_json::to_string(&Manifest::new("testing", "1.0.0", 1..=1, 4)).unwrap();
    JournalHeader { room: room.into(), opened_unix_ms: 1, setup: record, manifest, module: *module.as_bytes() }
}

/// Notes a tick of a game of one player who steers all the time.
fn note_tick(journal: &mut RoomJournal, frame: u32) {
    let mut record = TickRecord::default();
    record.begin(frame, 1, 4);
    let input = frame.wrapping_mul(2_654_435_761).to_le_bytes();
    record.set_input(0, PlayerInput { status: InputStatus::Fresh, age_frames: 0, bytes: &input });
    let ran = Ran::Stepped { output: &[], usage: Usage::default() };
    journal.note(&Departure::Tick { frame, record: record.bytes(), ran });
}

fn play(journal: &mut RoomJournal, frames: std::ops::Range<u32>) {
    for frame in frames {
        note_tick(journal, frame);
        journal.hand_over();
    }
}

fn end(journal: &mut RoomJournal, frames: u32) {
    journal.note(&Departure::Ended { outcome: Outcome::Aborted { frames, reason: AbortReason::Requested } });
    journal.hand_over();
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn write_aged(path: &Path, bytes: &[u8], age: Duration) {
    std::fs::write(path, bytes).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

/// The bytes of a whole journal.
fn whole_journal(room: &str, module: ModuleHash) -> Vec<u8> {
    let mut writer = JournalWriter::begin(&header(room, module));
    writer.finish();
    writer.take()
}

fn work(dir: &Path, events: &Events, retention: Retention, in_use: ModulesInUse) -> Work {
    let folder = Folder::of(dir);
    folder.make().unwrap();
    Work::new(dir, Desk::new(folder).0, retention, in_use, events.sink())
}

#[tokio::test]
async fn rooms_have_a_file_each_while_they_run_and_a_closed_one_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let events = events(dir.path()).await;
    let (journals, threads) = Journals::start(dir.path(), KEPT, none_in_use(), events.sink()).unwrap();
    let module = ModuleHash::of(b"m");
    let (mut one, mut two) =
        (journals.begin_with(&header("r-1", module), "m"), journals.begin_with(&header("r-2", module), "m"));
    play(&mut one, 0..120);
    play(&mut two, 0..70);
    // Two whole blocks of 50 frames are there while the room runs.
    until("the blocks are written", || journals.facts("r-1").is_some_and(|facts| facts.bytes > 100 * 4));
    let (_, bytes) = journals.read("r-1").unwrap().unwrap();
    assert!(bytes >= journals.facts("r-1").unwrap().bytes);
    let running = prefix_of(&journals.folder().find("r-1").unwrap()).unwrap().unwrap();
    assert_eq!((running.frames, running.is_whole), (100, false));
    end(&mut one, 120);
    end(&mut two, 70);
    // Nothing after the end, and a second end, have no effect.
    play(&mut one, 120..130);
    one.finish();
    until("both are closed", || journals.facts("r-1").is_none() && journals.facts("r-2").is_none());
    for (room, frames) in [("r-1", 120), ("r-2", 70)] {
        let path = journals.folder().find(room).unwrap();
        assert_eq!(path, journals.folder().closed(room));
        let prefix = prefix_of(&path).unwrap().unwrap();
        assert_eq!((prefix.frames, prefix.is_whole, prefix.module_name.as_str()), (frames, true, "testing"));
        assert_eq!(prefix.bytes, std::fs::metadata(&path).unwrap().len());
    }
    assert!(journals.folder().list_running().unwrap().is_empty());
    assert_eq!(events.stats().queued, 2, "an event for each");
    threads.stop();
}

#[tokio::test]
async fn a_disk_that_fails_ends_the_journal_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let events = events(dir.path()).await;
    let (journals, threads) = Journals::start(dir.path(), KEPT, none_in_use(), events.sink()).unwrap();
    let mut journal = journals.begin_with(&header("r-1", ModuleHash::of(b"m")), "m");
    until("the header is written", || journals.facts("r-1").is_some_and(|facts| facts.bytes > 0));
    // The file is gone, and with it the folder: no write can succeed.
    std::fs::remove_dir_all(journals.folder().path()).unwrap();
    play(&mut journal, 0..50);
    until("it is given up", || journals.facts("r-1").is_none());
    // Told at once, not when the room ends.
    until("it is told", || events.stats().queued == 1);
    play(&mut journal, 50..5_000);
    assert!(journal.inner.is_none(), "what nobody will write is not even put together");
    end(&mut journal, 5_000);
    // The others have their disk.
    std::fs::create_dir_all(journals.folder().closed("x").parent().unwrap()).unwrap();
    let mut other = journals.begin_with(&header("r-2", ModuleHash::of(b"m")), "m");
    play(&mut other, 0..10);
    end(&mut other, 10);
    until("the other one is closed", || journals.facts("r-2").is_none());
    assert!(prefix_of(&journals.folder().closed("r-2")).unwrap().unwrap().is_whole);
    threads.stop();
    assert_eq!(events.stats().queued, 2, "one event for each journal");
}

#[tokio::test]
async fn a_file_that_somebody_cuts_while_it_is_written_ends_its_journal() {
    let dir = tempfile::tempdir().unwrap();
    let events = events(dir.path()).await;
    let (journals, threads) = Journals::start(dir.path(), KEPT, none_in_use(), events.sink()).unwrap();
    let mut journal = journals.begin_with(&header("r-1", ModuleHash::of(b"m")), "m");
    until("the header is written", || journals.facts("r-1").is_some_and(|facts| facts.bytes > 0));
    let path = journals.folder().running("r-1");
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(10).unwrap();
    play(&mut journal, 0..50);
    until("it is given up before its room ends", || journals.facts("r-1").is_none());
    assert_eq!(std::fs::metadata(journals.folder().closed("r-1")).unwrap().len(), 10, "nothing is added");
    threads.stop();
}

#[tokio::test]
async fn a_full_queue_ends_the_journal_and_keeps_what_was_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let events = events(dir.path()).await;
    let folder = Folder::of(dir.path());
    folder.make().unwrap();
    // Nobody writes yet: a disk that stalls.
    let (desk, messages) = Desk::new(folder.clone());
    let journals = Journals { desk: Some(Arc::clone(&desk)), folder: folder.clone() };
    let mut journal = journals.begin_with(&header("r-1", ModuleHash::of(b"m")), "m");
    play(&mut journal, 0..60);
    let others = QUEUED_BYTES_MAX - desk.queued_bytes.load(Ordering::Acquire);
    desk.queued_bytes.fetch_add(others, Ordering::AcqRel);
    play(&mut journal, 60..100);
    let facts = journals.facts("r-1").unwrap();
    assert_eq!(facts.state, JournalState::Incomplete);
    assert!(facts.problem.unwrap().contains("the disk is slower than the rooms: more than 64 MiB"));
    assert!(journal.inner.is_none());
    desk.queued_bytes.fetch_sub(others, Ordering::AcqRel);
    desk.queue.try_send(Message::Stop).unwrap();
    let (poke, _poked) = sync_channel(1);
    writer::Writer::new(Arc::clone(&desk), messages, events.sink(), poke, u64::MAX).run();
    assert_eq!(desk.queued_bytes.load(Ordering::Acquire), 0);
    let prefix = prefix_of(&folder.closed("r-1")).unwrap().unwrap();
    assert_eq!((prefix.frames, prefix.is_whole), (50, false));
    assert_eq!(events.stats().queued, 1);
}

#[tokio::test]
async fn a_journal_that_grows_without_end_and_a_room_that_is_lost_are_incomplete() {
    let dir = tempfile::tempdir().unwrap();
    let events = events(dir.path()).await;
    let (journals, threads) = Journals::start(dir.path(), KEPT, none_in_use(), events.sink()).unwrap();
    let mut journal = journals.begin_with(&header("r-1", ModuleHash::of(b"m")), "m");
    let open = Arc::clone(&journal.inner.as_ref().unwrap().open);
    journal.inner.as_mut().unwrap().bytes = JOURNAL_BYTES_MAX - 10;
    play(&mut journal, 0..50);
    assert!(open.problem.get().unwrap().contains("64 MiB, the most that one room may have"));
    let mut lost = journals.begin_with(&header("r-2", ModuleHash::of(b"m")), "m");
    play(&mut lost, 0..1);
    let lost_open = Arc::clone(&lost.inner.as_ref().unwrap().open);
    drop(lost);
    assert_eq!(lost_open.problem.get().unwrap(), "its room was lost");
    until("both are closed", || journals.facts("r-1").is_none() && journals.facts("r-2").is_none());
    threads.stop();
    assert_eq!(events.stats().queued, 2);
}

#[tokio::test]
async fn a_room_that_no_shard_took_leaves_no_journal() {
    let dir = tempfile::tempdir().unwrap();
    let events = events(dir.path()).await;
    let (journals, threads) = Journals::start(dir.path(), KEPT, none_in_use(), events.sink()).unwrap();
    drop(journals.begin_with(&header("r-1", ModuleHash::of(b"m")), "m"));
    until("it is forgotten", || journals.facts("r-1").is_none());
    assert!(journals.folder().rooms().is_empty());
    threads.stop();
    assert_eq!(events.stats().queued, 0);
}

#[tokio::test]
async fn what_a_killed_host_left_is_cut_to_its_last_whole_block_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let events = events(dir.path()).await;
    let folder = Folder::of(dir.path());
    folder.make().unwrap();
    let module = ModuleHash::of(b"m");
    let mut writer = JournalWriter::begin(&header("cut", module));
    let whole_blocks = writer.take();
    let mut with_half_a_block = whole_blocks.clone();
    with_half_a_block.extend_from_slice(&[200, 0, 0, 0, 1, 2, 3, 4, 5, 6]);
    std::fs::write(folder.running("cut"), &with_half_a_block).unwrap();
    std::fs::write(folder.running("whole"), whole_journal("whole", module)).unwrap();
    std::fs::write(folder.running("headless"), &whole_blocks[..whole_blocks.len() / 2]).unwrap();
    std::fs::write(folder.running("empty"), b"").unwrap();
    let (journals, threads) = Journals::start(dir.path(), KEPT, none_in_use(), events.sink()).unwrap();
    until("all are taken over", || folder.list_running().unwrap().is_empty());
    until("the two that can be read are told", || events.stats().queued == 2);
    threads.stop();
    assert_eq!(std::fs::read(folder.closed("cut")).unwrap(), whole_blocks);
    assert!(prefix_of(&folder.closed("whole")).unwrap().unwrap().is_whole);
    assert_eq!(folder.rooms(), ["cut", "whole"]);
    assert!(journals.read("headless").unwrap().is_none());
}

#[tokio::test]
async fn what_somebody_changed_in_a_journal_that_was_left_is_kept_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let events = events(dir.path()).await;
    let folder = Folder::of(dir.path());
    folder.make().unwrap();
    let whole = whole_journal("middle", ModuleHash::of(b"m"));
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    // The last block ends with the file, the first one begins with the header.
    let (middle, head) = (flipped(whole.len() - 1), flipped(20));
    std::fs::write(folder.running("middle"), &middle).unwrap();
    std::fs::write(folder.running("head"), &head).unwrap();
    let (_journals, threads) = Journals::start(dir.path(), KEPT, none_in_use(), events.sink()).unwrap();
    until("the one that can be read is taken over", || folder.closed("middle").is_file());
    until("it is told", || events.stats().queued == 1);
    threads.stop();
    assert_eq!(std::fs::read(folder.closed("middle")).unwrap(), middle);
    assert_eq!(std::fs::read(folder.running("head")).unwrap(), head);
}

#[tokio::test]
async fn the_oldest_journals_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let events = events(dir.path()).await;
    let folder = Folder::of(dir.path());
    folder.make().unwrap();
    for (room, days, bytes) in [("a", 31, 10), ("b", 29, 400), ("c", 5, 300), ("d", 1, 300), ("e", 0, 100)] {
        write_aged(&folder.closed(room), &vec![0; bytes], DAY * days);
    }
    std::fs::write(folder.running("open"), vec![0; 200]).unwrap();
    let look = |days, bytes_max| {
        work(dir.path(), &events, Retention { days, bytes_max }, none_in_use()).look(SystemTime::now());
        folder.rooms()
    };
    assert_eq!(look(30, 10_000), ["b", "c", "d", "e", "open"]);
    assert_eq!(look(30, 1_000), ["c", "d", "e", "open"]);
    assert_eq!(look(30, 899), ["d", "e", "open"]);
    // Those of open rooms count and stay, even if they alone are too much.
    assert_eq!(look(30, 100), ["open"]);
    write_aged(&folder.closed("f"), b"1", Duration::ZERO);
    assert_eq!(look(0, 10_000), ["open"]);
}

#[tokio::test]
async fn a_host_that_keeps_no_journals_writes_none_and_deletes_old_ones() {
    let dir = tempfile::tempdir().unwrap();
    let events = events(dir.path()).await;
    let folder = Folder::of(dir.path());
    folder.make().unwrap();
    let module = ModuleHash::of(b"m");
    std::fs::write(folder.running("left"), whole_journal("left", module)).unwrap();
    std::fs::write(folder.closed("old"), whole_journal("old", module)).unwrap();
    let none = Retention { days: 0, ..KEPT };
    let (journals, threads) = Journals::start(dir.path(), none, none_in_use(), events.sink()).unwrap();
    let mut journal = journals.begin_with(&header("r-1", module), "m");
    play(&mut journal, 0..100);
    end(&mut journal, 100);
    until("all are deleted", || folder.rooms().is_empty());
    assert!(!journals.are_kept() && journals.facts("r-1").is_none());
    threads.stop();
    assert_eq!((folder.rooms().len(), events.stats().queued), (0, 0));
}

#[tokio::test]
async fn modules_go_when_no_journal_and_no_name_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let events = events(dir.path()).await;
    let folder = Folder::of(dir.path());
    folder.make().unwrap();
    let modules = dir.path().join("modules");
    std::fs::create_dir(&modules).unwrap();
    let names = ["needed by a journal", "needed by an open room", "has a name", "new", "nobody's"];
    let [by_journal, by_open, named, new, nobodys] = names.map(|name| ModuleHash::of(name.as_bytes()));
    let path = |hash: ModuleHash| modules.join(format!("{hash}.wasm"));
    for hash in [by_journal, by_open, named, nobodys] {
        write_aged(&path(hash), b"wasm", DAY * 40);
    }
    write_aged(&path(new), b"wasm", Duration::ZERO);
    write_aged(&modules.join("readme.wasm"), b"", DAY * 40);
    write_aged(&modules.join(format!("{nobodys}-1234.code")), b"", DAY * 40);
    std::fs::write(folder.closed("j"), whole_journal("j", by_journal)).unwrap();
    std::fs::write(folder.running("o"), whole_journal("o", by_open)).unwrap();

    // A journal that cannot be read may need any of them.
    std::fs::write(folder.closed("damaged"), b"no journal").unwrap();
    let in_use = || -> ModulesInUse { Box::new(move |hash| *hash == named) };
    work(dir.path(), &events, KEPT, in_use()).look(SystemTime::now());
    assert!(path(nobodys).exists());
    std::fs::remove_file(folder.closed("damaged")).unwrap();
    let mut work = work(dir.path(), &events, KEPT, in_use());
    work.look(SystemTime::now());
    assert!(!path(nobodys).exists());
    for hash in [by_journal, by_open, named, new] {
        assert!(path(hash).exists(), "{hash}");
    }
    assert_eq!(std::fs::read_dir(&modules).unwrap().count(), 6);
    // The journal goes, its module follows.
    std::fs::remove_file(folder.closed("j")).unwrap();
    work.look(SystemTime::now());
    assert!(!path(by_journal).exists() && path(by_open).exists());
}

#[tokio::test]
async fn of_too_many_modules_those_go_that_nothing_needs_however_new_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let events = events(dir.path()).await;
    let folder = Folder::of(dir.path());
    folder.make().unwrap();
    let modules = dir.path().join("modules");
    std::fs::create_dir(&modules).unwrap();
    let hashes: Vec<ModuleHash> = (0..6_u8).map(|n| ModuleHash::of(&[n])).collect();
    let path = |n: usize| modules.join(format!("{}.wasm", hashes[n]));
    for n in 0..6 {
        // All of today; the first is the oldest.
        write_aged(&path(n), b"12345678", Duration::from_secs(600 - 60 * n as u64));
    }
    std::fs::write(folder.closed("j"), whole_journal("j", hashes[0])).unwrap();
    // Its header never got to the disk: there is nothing to replay.
    std::fs::write(folder.closed("torn"), &whole_journal("torn", hashes[1])[..20]).unwrap();
    let named = hashes[2];
    let mut work = work(dir.path(), &events, KEPT, Box::new(move |hash| *hash == named));
    let mut left = |files_max, bytes_max| {
        let (running, closed) = (folder.list_running().unwrap(), folder.list_closed().unwrap());
        work.delete_modules(&running, &closed, files_max, bytes_max);
        (0..6).map(|n| path(n).exists()).collect::<Vec<_>>()
    };
    assert_eq!(left(6, 48), [true; 6], "as many as may be");
    assert_eq!(left(5, 48), [true, false, true, true, true, true]);
    assert_eq!(left(6, 39), [true, false, true, false, true, true]);
    // What is needed stays, even if it alone is too much.
    assert_eq!(left(1, 8), [true, false, true, false, false, false]);
}
