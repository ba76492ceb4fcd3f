//! The host's two clocks: microseconds since the process began for rooms and deadlines, and wall time for people. Sleeping
//! until an absolute time lives here too, with the calls that are Linux's own.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A monotonic clock in microseconds, 0 when it was made. Copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    zero: Instant,
    zero_unix_ms: u64,
    /// The start on the system's monotonic clock, for sleeping until an absolute time.
    #[cfg(target_os = "linux")]
    zero_monotonic_ns: u64,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            zero: Instant::now(),
            zero_unix_ms: unix_ms(),
            // Read after `zero`, so that a sleep ends late by the moment between the two and never early.
            #[cfg(target_os = "linux")]
            zero_monotonic_ns: monotonic_ns(),
        }
    }

    /// Microseconds since the start.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The wall time of a moment on this clock, in milliseconds since 1970. The same whenever it is asked: a later change of the
    /// machine's time does not show.
    #[must_use]
    pub const fn unix_ms_at(&self, at_us: u64) -> u64 {
        self.zero_unix_ms.saturating_add(at_us / 1_000)
    }

    /// Sleeps until `due_us` on this clock; returns at once if that is past.
    pub fn sleep_until(&self, due_us: u64) {
        let now_us = self.now_us();
        if due_us <= now_us {
            return;
        }
        #[cfg(target_os = "linux")]
        if sleep_until_monotonic(self.zero_monotonic_ns.saturating_add(due_us.saturating_mul(1_000))) {
            return;
        }
        std::thread::sleep(Duration::from_micros(due_us - now_us));
    }
}

/// The processor time of the calling thread, in nanoseconds. Reads a file, which takes about 10 µs: nothing for a tick. None elsewhere than on Linux.
#[must_use]
pub fn thread_cpu_ns() -> Option<u64> {
    // Time on the processor, time waiting for it, and how often (Documentation/scheduler/sched-stats.rst of Linux), in nanoseconds.
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

/// Milliseconds since 1970, UTC. 0 if the machine's clock is set to before that.
#[must_use]
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(target_os = "linux")]
fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to the timespec that it is given, which lives until it returns. CLOCK_MONOTONIC cannot fail.
    #[allow(unsafe_code)]
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
    }
    let (s, ns) = (u64::try_from(now.tv_sec).unwrap_or_default(), u64::try_from(now.tv_nsec).unwrap_or_default());
    s.saturating_mul(1_000_000_000).saturating_add(ns)
}

/// Sleeps until an absolute time, so that what happens between looking at the clock and sleeping makes nothing late. False if
/// the system refuses.
#[cfg(target_os = "linux")]
fn sleep_until_monotonic(due_ns: u64) -> bool {
    const NS_PER_S: u64 = 1_000_000_000;
    let (Ok(tv_sec), Ok(tv_nsec)) =
        (libc::time_t::try_from(due_ns / NS_PER_S), libc::c_long::try_from(due_ns % NS_PER_S))
    else {
        return false;
    };
    let due = libc::timespec { tv_sec, tv_nsec };
    loop {
        // SAFETY: the call reads the timespec, which lives until it returns, and writes nothing: an absolute sleep has no rest.
        #[allow(unsafe_code)]
        let error = unsafe {
            libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const due, std::ptr::null_mut())
        };
        // A signal handler ran; the time to wait for is still the same.
        if error != libc::EINTR {
            return error == 0;
        }
    }
}

/// Asks the system to wake this thread when its sleep ends and not up to 50 µs later. Measured: 0.04 instead of 0.10 ms late at the median.
/// Elsewhere than on Linux it does nothing.
pub fn wake_promptly() {
    #[cfg(target_os = "linux")]
    {
        const TIMER_SLACK_NS: libc::c_ulong = 1;
        // SAFETY: PR_SET_TIMERSLACK takes one integer and touches no memory; a failure only leaves the default.
        #[allow(unsafe_code)]
        unsafe {
            libc::prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0);
        }
    }
}

/// Lets other threads of this machine go first: this one gets about a third of what a shard gets where both want the same core. For work that takes
/// seconds and that nobody's tick waits for. Elsewhere than on Linux it does nothing.
pub fn give_way() {
    set_niceness(5);
}

/// Sets how much this thread gives way to others: 19 gets a seventieth of what 0 gets where both want the same core. Elsewhere than on Linux it does nothing; so it
/// does where the system does not let this process have it.
#[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
pub fn set_niceness(niceness: i32) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: takes integers and touches no memory. 0 is the calling thread: on Linux each has a niceness of its own. A failure only leaves the
        // one that it has.
        #[allow(unsafe_code)]
        unsafe {
            libc::setpriority(libc::PRIO_PROCESS, 0, niceness);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_never_ends_early_and_a_past_one_returns() {
        let clock = Clock::start();
        let due_us = clock.now_us() + 2_000;
        clock.sleep_until(due_us);
        assert!(clock.now_us() >= due_us);
        clock.sleep_until(0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_works_uses_processor_time() {
        let before = thread_cpu_ns().expect("Linux says it");
        let (mut sum, deadline) = (0u64, Instant::now() + Duration::from_secs(60));
        // The system accounts in steps of some milliseconds.
        while thread_cpu_ns() == Some(before) && Instant::now() < deadline {
            sum = (0..1_000_000).fold(sum, |sum, number| std::hint::black_box(sum ^ number));
        }
        assert!(thread_cpu_ns() > Some(before), "{sum}");
    }
}
