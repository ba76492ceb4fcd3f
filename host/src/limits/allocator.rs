//! How the system's allocator is asked to behave: how many arenas it makes, and when it gives memory back. Only the binary asks; a program that links the library decides for itself.

/// Variables by which a user sets the number of arenas (mallopt(3), and "Tunables" in the manual of the GNU C library), and what must be in their value.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SET_BY_USER: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", ""), ("GLIBC_TUNABLES", "glibc.malloc.arena_max")];

/// Processor threads for each arena. An arena is a heap with a lock. A tick asks for no memory, so the lock is seldom waited for; what doors and journals ask for comes
/// mostly from what each thread keeps beside the arenas.
#[cfg(any(test, all(target_os = "linux", target_env = "gnu")))]
const CORES_PER_ARENA: usize = 8;

/// Lets the GNU allocator make an arena for each [`CORES_PER_ARENA`] processor threads instead of eight for each one. What a host asks for while it starts (modules are compiled)
/// and gives back stays with the arena that it came from; with one for all threads, rooms and sessions get it. Measured on 2 cores: 10 MiB less, with 200 rooms as with 600.
///
/// To be called before a second thread begins. Does nothing if the user has set the number, and none on other systems.
pub(crate) fn use_few_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let is_set = SET_BY_USER.iter().any(|(name, part)| {
            std::env::var_os(name).is_some_and(|value| !value.is_empty() && value.to_string_lossy().contains(part))
        });
        if is_set {
            return;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // SAFETY: takes two integers and changes a setting of the allocator, under its lock. A failure leaves the default.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, arenas(cores));
        }
    }
}

/// Gives memory that was asked for and given back, and lies in whole pages, back to the system. To be called when much of it was: takes milliseconds, in which other threads wait for
/// memory. Does nothing with other allocators than the GNU one.
pub(crate) fn give_back_unused() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: takes an integer, and touches only pages that the allocator knows nobody has.
        #[allow(unsafe_code)]
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// How many arenas so many processor threads get.
#[cfg(any(test, all(target_os = "linux", target_env = "gnu")))]
fn arenas(cores: usize) -> i32 {
    i32::try_from(cores.div_ceil(CORES_PER_ARENA).max(1)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_an_arena_for_eight_processor_threads_and_never_none() {
        assert_eq!([0, 1, 2, 8, 9, 64, 256].map(arenas), [1, 1, 1, 1, 2, 8, 32]);
    }
}
