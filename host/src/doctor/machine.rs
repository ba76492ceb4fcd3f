//! What the machine gives: files, mappings, memory, the receive buffer, datagrams steered to shards, a clock that is right and a timer that is in time.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use holeshot_seal::SelfTestError;

use super::{Finding, size};
use crate::clock::{Clock, wake_promptly};
use crate::config::Config;
use crate::doors::gate::{Limit, Limits};
use crate::limits::ask::ask;
use crate::limits::files::{FILES_RESERVED, divide};
use crate::limits::mappings::Mappings;
use crate::limits::memory::{MemoryBound, MemoryGate};
use crate::limits::receive_buffer::{self, RECEIVE_BUFFER_BYTES, ask_receive_buffer};
use crate::server::INSTANCES_SPARE;
use crate::shard::Sockets;

/// Deadlines that are measured: two seconds of a game.
const DEADLINES: u64 = 100;
/// From one to the next, in microseconds: a frame at 50 Hz.
const FRAME_US: u64 = 20_000;
/// A quarter of a frame, in microseconds: one deadline in a hundred that is later is felt in a close race.
const LATE_P99_US_MAX: u64 = 5_000;
/// A frame, in microseconds: one that is later comes after the next.
const LATE_MAX_US_MAX: u64 = FRAME_US;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    findings.extend(open_files_max(&limits).map(|limit| judge_files(limit, &config.gate.limits, config.rooms_max)));
    findings.extend(Mappings::of_this_process().map(|mappings| judge_mappings(mappings, config.rooms_max)));
    let gate = MemoryGate::new(config.memory_reserve_mib, Clock::start());
    if let (Some(seen), Some((rooms, bound))) = (gate.available(), gate.rooms_possible()) {
        findings.push(judge_memory(seen.bytes, rooms, bound, config.memory_reserve_mib, config.rooms_max));
    }
    findings.extend(receive_buffer().map(judge_buffer));
    if config.shards > 1 && config.steer_datagrams {
        findings.extend(is_steered().map(judge_steering));
    }
    findings.push(judge_sealing(holeshot_seal::self_test()));
    findings.push(judge_clock(clock_source()));
    findings.push(judge_timer(&measure()));
    findings
}

/// The hard limit: a host raises its own to it.
fn open_files_max(limits: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn judge_files(limit: u64, limits: &Limits, rooms_max: u32) -> Finding {
    const CHECK: &str = "open files";
    let [http_max, websockets_max] =
        [Limit::Connections, Limit::Websockets].map(|limit| u32::try_from(limits.get(limit)).unwrap_or(u32::MAX));
    let fit = divide(Some(limit), http_max, websockets_max).websockets_max;
    let found = format!("at most {limit} in a process started here, which carries {fit} players' WebSockets");
    let advice = "raise it: LimitNOFILE=65536 in the systemd unit, or `ulimit -n` in the shell that starts the host";
    let wished = rooms_max.saturating_mul(2).min(websockets_max);
    if limit < 2 * FILES_RESERVED {
        let found = format!("{found}; databases, broker and log take up to {FILES_RESERVED}");
        Finding::problem(CHECK, found, advice)
    } else if fit < wished {
        let found = format!("{found}; {rooms_max} rooms of two need {wished}");
        Finding::warning(CHECK, found, advice)
    } else {
        Finding::ok(CHECK, found)
    }
}

fn judge_mappings(mappings: Mappings, rooms_max: u32) -> Finding {
    const CHECK: &str = "memory mappings";
    let needed = mappings.needed(u64::from(rooms_max) + u64::from(INSTANCES_SPARE));
    let found = format!("vm.max_map_count is {}, and {rooms_max} rooms need {needed}", mappings.limit);
    if needed <= mappings.limit {
        return Finding::ok(CHECK, found);
    }
    let possible = mappings.instances_possible().saturating_sub(INSTANCES_SPARE.into());
    let advice = format!(
        "a host does not start so: `sysctl -w vm.max_map_count={}` (and the same in /etc/sysctl.d), or rooms_max of {possible} at most",
        needed.next_power_of_two()
    );
    Finding::problem(CHECK, found, advice)
}

fn judge_memory(free_bytes: u64, rooms: u64, bound: MemoryBound, reserve_mib: u32, rooms_max: u32) -> Finding {
    const CHECK: &str = "memory";
    let found = format!(
        "{} are left by {bound}; without the reserve of {reserve_mib} MiB that carries {rooms} typical rooms",
        size(free_bytes)
    );
    let advice = "give the host more memory, or lower rooms_max or memory_reserve_mib";
    match rooms {
        0 => Finding::problem(CHECK, format!("{found}: not one opens"), advice),
        _ if rooms < u64::from(rooms_max) => {
            Finding::warning(CHECK, format!("{found}, and rooms_max is {rooms_max}"), advice)
        }
        _ => Finding::ok(CHECK, found),
    }
}

/// What the system grants of what a host asks for.
fn receive_buffer() -> Option<usize> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    ask_receive_buffer(&socket, RECEIVE_BUFFER_BYTES).ok()
}

fn judge_buffer(granted: usize) -> Finding {
    const CHECK: &str = "receive buffer";
    let (granted, asked) = (granted as u64, RECEIVE_BUFFER_BYTES as u64);
    let found = format!("{} for datagrams, of {} that a host asks for", size(granted), size(asked));
    if granted >= asked {
        return Finding::ok(CHECK, found);
    }
    let found = format!("{found}: a burst of a few hundred players' inputs overflows it");
    Finding::warning(CHECK, found, receive_buffer::advice())
}

/// Whether the system gives datagrams to the shard that they name, as it would those of a host: tried with two sockets on a port of this machine's own.
fn is_steered() -> Option<bool> {
    Sockets::bind((Ipv4Addr::LOCALHOST, 0).into(), 2, true).ok().map(|sockets| sockets.are_steered())
}

fn judge_steering(is_steered: bool) -> Finding {
    const CHECK: &str = "steering";
    if is_steered {
        return Finding::ok(CHECK, "the system gives each datagram to its shard");
    }
    Finding::warning(
        CHECK,
        "the system does not give datagrams to their shards: these hand them to each other, which makes receiving half as dear again, or more",
        "Linux can, where a sandbox does not forbid SO_ATTACH_REUSEPORT_CBPF; elsewhere nothing is wrong, and steer_datagrams = false says that it is known",
    )
}

fn judge_sealing(tested: Result<(), SelfTestError>) -> Finding {
    const CHECK: &str = "sealing";
    match tested {
        Ok(()) => Finding::ok(CHECK, "ring and chacha20poly1305 give the same bytes on this machine"),
        Err(error) => Finding::problem(CHECK, error.to_string(), "a host does not start so: build it on this machine"),
    }
}

/// Whether the clock is set by another one, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Synchronised {
    Yes(&'static str),
    No(&'static str),
    Unknown,
}

fn clock_source() -> Synchronised {
    // systemd-timesyncd(8): the file is there once the clock was set since the start of the machine.
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Synchronised::Yes("systemd-timesyncd");
    }
    let arguments = ["show", "--property=NTPSynchronized", "--value"].map(OsStr::new);
    if let Some(text) = ask("timedatectl", &arguments) {
        match text.trim() {
            "yes" => return Synchronised::Yes("timedatectl"),
            "no" => return Synchronised::No("timedatectl"),
            _ => {}
        }
    }
    ask("chronyc", &["-c", "tracking"].map(OsStr::new)).map_or(Synchronised::Unknown, |text| chrony(&text))
}

/// chronyc(1), `tracking` as CSV: the last field is the leap status, `Not synchronised` while there is no source.
fn chrony(text: &str) -> Synchronised {
    match text.trim().rsplit(',').next() {
        Some("Normal" | "Insert second" | "Delete second") => Synchronised::Yes("chrony"),
        Some("Not synchronised") => Synchronised::No("chrony"),
        _ => Synchronised::Unknown,
    }
}

fn judge_clock(source: Synchronised) -> Finding {
    const CHECK: &str = "clock";
    let advice = "install systemd-timesyncd or chrony: tickets expire by this clock, and results of several hosts are compared by it";
    match source {
        Synchronised::Yes(who) => Finding::ok(CHECK, format!("synchronised, as {who} says")),
        Synchronised::No(who) => Finding::warning(CHECK, format!("not synchronised, as {who} says"), advice),
        Synchronised::Unknown => Finding::warning(CHECK, "nothing here says whether it is synchronised", advice),
    }
}

/// How late the deadlines of a game came, in microseconds, sorted.
fn measure() -> Vec<u64> {
    // A thread of its own, as that of a shard: the slack of this one stays what it is.
    let measured = std::thread::spawn(|| {
        wake_promptly();
        let clock = Clock::start();
        let mut late: Vec<u64> = (1..=DEADLINES)
            .map(|frame| {
                let due_us = frame * FRAME_US;
                clock.sleep_until(due_us);
                clock.now_us().saturating_sub(due_us)
            })
            .collect();
        late.sort_unstable();
        late
    });
    measured.join().unwrap_or_default()
}

fn judge_timer(late_us: &[u64]) -> Finding {
    const CHECK: &str = "timer";
    let at = |percent: usize| late_us.get((late_us.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    let (Some(p50), Some(p99), Some(max)) = (at(50), at(99), late_us.last().copied()) else {
        return Finding::problem(CHECK, "no deadline could be measured", "see whether this machine gives threads");
    };
    let ms = |us: u64| us as f64 / 1_000.0;
    let found = format!(
        "{} deadlines of {} ms came late by {:.2} ms (half), {:.2} ms (99 %), {:.2} ms (worst)",
        late_us.len(),
        FRAME_US / 1_000,
        ms(p50),
        ms(p99),
        ms(max)
    );
    if p99 > LATE_P99_US_MAX || max > LATE_MAX_US_MAX {
        let found = format!("{found}; up to {} and {} ms are fine", LATE_P99_US_MAX / 1_000, LATE_MAX_US_MAX / 1_000);
        let advice = "look at what else runs here (`top`; `st` there is time that other machines on the same computer took); races need a core that is free";
        return Finding::warning(CHECK, found, advice);
    }
    Finding::ok(CHECK, found)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::tests::says;
    use super::*;

    #[test]
    fn files_and_mappings_are_judged_by_what_the_rooms_need() {
        says(&judge_files(1 << 20, &Limits::default(), 4_000), Verdict::Ok, &["1048576"]);
        says(&judge_files(4_096, &Limits::default(), 4_000), Verdict::Warning, &["need 8000", "LimitNOFILE"]);
        says(&judge_files(64, &Limits::default(), 16), Verdict::Problem, &["at most 64", "ulimit -n"]);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(open_files_max(limits), Some(524_288));
        assert_eq!((open_files_max(""), open_files_max("Max open files 1024 unlimited files")), (None, None));
        let mappings = Mappings { limit: 65_530, used: 200 };
        says(&judge_mappings(mappings, 4_000), Verdict::Ok, &["65530"]);
        says(
            &judge_mappings(mappings, 30_000),
            Verdict::Problem,
            &["sysctl -w vm.max_map_count=131072", "rooms_max of"],
        );
    }

    #[test]
    fn memory_and_buffers_are_judged_by_what_they_carry() {
        let machine = MemoryBound::Machine;
        says(&judge_memory(8 << 30, 60_000, machine, 256, 4_000), Verdict::Ok, &["8.0 GiB", "60000 typical"]);
        says(&judge_memory(400 << 20, 1_000, machine, 256, 4_000), Verdict::Warning, &["rooms_max is 4000"]);
        says(&judge_memory(200 << 20, 0, machine, 256, 4_000), Verdict::Problem, &["not one opens"]);
        says(&judge_buffer(4 << 20), Verdict::Ok, &["4.0 MiB"]);
        says(&judge_buffer(212_992), Verdict::Warning, &["208.0 KiB", "net.core.rmem_max=4194304"]);
        assert!(receive_buffer().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn steering_is_tried_where_it_runs() {
        says(&judge_steering(true), Verdict::Ok, &["its shard"]);
        says(&judge_steering(false), Verdict::Warning, &["hand them", "steer_datagrams = false"]);
        assert_eq!(is_steered(), Some(cfg!(target_os = "linux")));
    }

    #[test]
    fn sealing_is_tested_where_it_runs() {
        says(&judge_sealing(holeshot_seal::self_test()), Verdict::Ok, &["same bytes"]);
        says(&judge_sealing(Err(SelfTestError { payload_bytes: 65 })), Verdict::Problem, &["65 bytes", "build it"]);
    }

    #[test]
    fn the_clock_is_as_good_as_its_source() {
        let tracking = "A9FEA97B,169.254.169.123,4,1700000000.0,0.000,0.0,0.0,-10.3,0.0,0.1,0.0,0.0,16.2,";
        assert_eq!(chrony(&format!("{tracking}Normal\n")), Synchronised::Yes("chrony"));
        assert_eq!(chrony(&format!("{tracking}Not synchronised\n")), Synchronised::No("chrony"));
        assert_eq!((chrony(""), chrony("506 Cannot talk to daemon")), (Synchronised::Unknown, Synchronised::Unknown));
        says(&judge_clock(Synchronised::Yes("chrony")), Verdict::Ok, &["chrony"]);
        says(&judge_clock(Synchronised::No("timedatectl")), Verdict::Warning, &["timedatectl", "install"]);
        says(&judge_clock(Synchronised::Unknown), Verdict::Warning, &["nothing here says"]);
    }

    #[test]
    fn a_late_timer_is_told_with_its_figures() {
        let late: Vec<u64> = (1..=100).collect();
        says(&judge_timer(&late), Verdict::Ok, &["100 deadlines of 20 ms", "0.05 ms (half)", "0.10 ms (99 %)"]);
        let mut late = vec![100; 98];
        late.extend([6_000, 7_000]);
        says(&judge_timer(&late), Verdict::Warning, &["6.00 ms (99 %), 7.00 ms (worst)", "up to 5 and 20 ms"]);
        let mut late = vec![100; 99];
        late.push(21_000);
        says(&judge_timer(&late), Verdict::Warning, &["21.00 ms (worst)"]);
        says(&judge_timer(&[]), Verdict::Problem, &["no deadline"]);
    }
}
