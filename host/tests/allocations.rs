//! What a shard's thread asks of the allocator while a race runs: a whole host, two drivers over datagrams, and a count for that thread alone. A tick in
//! which nothing but inputs and snapshots comes about asks for nothing. Events, states and blocks of the journal cost memory; they are rare, and bounded here.
#![cfg(target_os = "linux")]
#![allow(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; this one only counts and hands on to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use holeshot::api::Api;
use holeshot::bots::{self, Bot};
use holeshot::config::Settings;
use holeshot::server::Server;
use serde_json::json;

/// The thread whose allocations count; 0: none.
static COUNTED_THREAD: AtomicI32 = AtomicI32::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Whether it is noted where they came from, and where that was.
static TRACED: AtomicBool = AtomicBool::new(false);
static PLACES: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    /// Whether this thread is making a backtrace, which allocates.
    static TRACING: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

fn count() {
    // SAFETY: gettid(2) takes nothing and cannot fail.
    if COUNTED_THREAD.load(Ordering::Relaxed) != unsafe { libc::gettid() } || TRACING.get() {
        return;
    }
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    if TRACED.load(Ordering::Relaxed) {
        TRACING.set(true);
        let place = std::backtrace::Backtrace::force_capture().to_string();
        PLACES.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(place);
        TRACING.set(false);
    }
}

// SAFETY: every call is handed on to the system's allocator unchanged; what is counted is in atomics and in a cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the pointer came from the system's allocator, and the caller keeps the rest of the contract.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, so from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Ticks that are looked at: three seconds of a race, in which the lights come on and the cars leave.
const TICKS: u64 = 150;
/// Allocations of so many ticks altogether: three or four states and as many blocks of the journal twice over, and a handful of events with four each. A single one in every
/// tick, or for every datagram, is more.
const ALLOCATIONS_MAX: u64 = 75;

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_without_news_allocates_nothing() -> anyhow::Result<()> {
    TRACED.store(std::env::var_os("HOLESHOT_ALLOCATIONS").is_some(), Ordering::Relaxed);
    let folder = tempfile::tempdir()?;
    let free = Some("127.0.0.1:0".parse()?);
    let settings = Settings {
        http_listen: free,
        udp_listen: free,
        mqtt_listen: free,
        data_dir: Some(folder.path().to_owned()),
        rooms_max: Some(8),
        linger_s: Some(0),
        shards: Some(1),
        ..Settings::default()
    };
    let server = Server::start(settings.resolve()?).await?;
    let api = Api::new(&server.url())?;
    let drivers = [0, 1].map(|lane| Bot {
        name: bots::name(lane),
        car: drag_race::cars().first().map(|car| car.id.to_string()).unwrap_or_default(),
        skill: 0.8,
        seed: lane as u64,
        with_udp: true,
    });
    let players: Vec<_> = drivers.iter().map(|bot| json!({ "name": bot.name, "data": { "car": bot.car } })).collect();
    let room = api.create_room(&players, &json!({ "tree": "sportsman" }), Some(1)).await?;
    let playing = drivers.map(|bot| {
        let (api, room) = (api.clone(), room.clone());
        tokio::spawn(async move { bots::play(&api, &room, &bot, None).await })
    });

    let shard = server.shards().first().context("a host without a shard")?.counters.clone();
    let ticks = || shard.ticks.load(Ordering::Relaxed);
    // Until the first checkpoints are over, in which buffers find their size.
    let deadline = Instant::now() + Duration::from_secs(60);
    until(deadline, || ticks() >= 110).await?;
    COUNTED_THREAD.store(thread("shard-0")?, Ordering::Relaxed);
    let (first, sent) = (ticks(), shard.datagrams_sent.load(Ordering::Relaxed));
    let (mut quiet, mut before, mut last) = (0_u64, 0, first);
    until(deadline, || {
        let (now, allocations) = (ticks(), ALLOCATIONS.load(Ordering::Relaxed));
        if now != last {
            quiet += if allocations == before { now - last } else { 0 };
            (before, last) = (allocations, now);
        }
        now >= first + TICKS
    })
    .await?;
    COUNTED_THREAD.store(0, Ordering::Relaxed);
    let (allocations, looked_at) = (ALLOCATIONS.load(Ordering::Relaxed), ticks() - first);
    let sent = shard.datagrams_sent.load(Ordering::Relaxed) - sent;
    println!("{allocations} allocations in {looked_at} ticks; {quiet} ticks were seen without one; {sent} datagrams");
    for place in PLACES.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter() {
        println!("{place}\n");
    }
    assert!(sent >= TICKS, "snapshots went out over datagrams: {sent}");
    assert!(allocations > 0, "the counter counts: a checkpoint costs memory");
    // A machine that is busy lets this thread look late, and more ticks go by.
    assert!(
        allocations * TICKS <= ALLOCATIONS_MAX * looked_at,
        "{allocations} allocations in {looked_at} ticks; HOLESHOT_ALLOCATIONS=1 shows where"
    );
    // The rest of the race is nobody's business.
    playing.iter().for_each(tokio::task::JoinHandle::abort);
    server.stop().await?;
    Ok(())
}

async fn until(deadline: Instant, mut is_so: impl FnMut() -> bool) -> anyhow::Result<()> {
    while !is_so() {
        if Instant::now() > deadline {
            bail!("it takes too long");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// The number of this process's thread with that name (proc_pid_comm(5)).
fn thread(name: &str) -> anyhow::Result<i32> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if std::fs::read_to_string(path.join("comm"))?.trim() == name {
            return Ok(path.file_name().context("a task without a number")?.to_string_lossy().parse()?);
        }
    }
    bail!("no thread is called {name}")
}
