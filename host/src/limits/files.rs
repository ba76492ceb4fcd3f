//! How many files (sockets are files) this process may have open, and what each kind gets of them.

/// What open files are divided into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    /// HTTP connections at a time.
    pub http_max: u32,
    /// WebSockets at a time.
    pub websockets_max: u32,
}

/// Files for everything that is neither a player nor a request: databases, the broker and its clients, logs, folders.
pub(crate) const FILES_RESERVED: u64 = 256;

/// Divides `limit` files: none for the reserve, a quarter of the rest at most for HTTP, what is then left for WebSockets; at least one
/// of each, at most `http_max` and `websockets_max`. Without a limit each gets its most.
#[must_use]
pub fn divide(limit: Option<u64>, http_max: u32, websockets_max: u32) -> Files {
    let Some(limit) = limit else { return Files { http_max, websockets_max } };
    let free = limit.saturating_sub(FILES_RESERVED);
    let at_most = |files: u64, most: u32| u32::try_from(files).unwrap_or(u32::MAX).clamp(1, most.max(1));
    let http_max = at_most(free / 4, http_max);
    Files { http_max, websockets_max: at_most(free.saturating_sub(http_max.into()), websockets_max) }
}

/// Raises this process's limit on open files to the most that the system allows it, and tells it. None where it does not say. The usual limit of 1,024 is
/// there for programs that cannot take more (select(2)); the system lets every program raise it.
#[must_use]
pub fn raise_limit() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the call writes to the rlimit that it is given, which lives until it returns.
        #[allow(unsafe_code)]
        let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
        if read != 0 {
            return None;
        }
        if limit.rlim_cur < limit.rlim_max {
            let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
            // SAFETY: the call reads the rlimit that it is given, which lives until it returns.
            #[allow(unsafe_code)]
            let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) };
            if set == 0 {
                tracing::debug!(from = limit.rlim_cur, to = limit.rlim_max, "raised the limit on open files");
                limit = raised;
            } else {
                let error = std::io::Error::last_os_error();
                tracing::warn!(limit = limit.rlim_cur, %error, "the limit on open files cannot be raised; fewer players fit");
            }
        }
        Some(limit.rlim_cur)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_gets_its_part_and_all_together_fit() {
        assert_eq!(divide(None, 1_000, 20_000), Files { http_max: 1_000, websockets_max: 20_000 });
        assert_eq!(divide(Some(1 << 20), 1_000, 20_000), Files { http_max: 1_000, websockets_max: 20_000 });
        assert_eq!(divide(Some(20_000), 1_000, 20_000), Files { http_max: 1_000, websockets_max: 18_744 });
        assert_eq!(divide(Some(1_024), 1_000, 20_000), Files { http_max: 192, websockets_max: 576 });
        for limit in 0..5_000 {
            let Files { http_max, websockets_max } = divide(Some(limit), 1_000, 20_000);
            assert!(http_max >= 1 && websockets_max >= 1);
            assert!(
                limit < FILES_RESERVED + 4 || u64::from(http_max + websockets_max) + FILES_RESERVED <= limit,
                "{limit}"
            );
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_limit_is_the_most_that_the_system_allows() {
        let raised = raise_limit().expect("Linux tells its limit");
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let mut fields = line.split_whitespace();
        let (soft, hard) = (fields.next().unwrap(), fields.next().unwrap());
        assert_eq!((soft, soft), (hard, &*raised.to_string()));
    }
}
