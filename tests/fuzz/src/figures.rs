//! The figures of a host that is asked how much it does: what is told of two pages is finite and not below nothing, whatever is on them.

use std::time::{Duration, Instant};

use holeshot::budget::counts::Page;

pub(crate) fn target(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (first, second) = text.split_once("\n# EOF\n").unwrap_or((&text, &text));
    let now = Instant::now();
    let (Ok(before), Ok(after)) = (Page::read(first, now), Page::read(second, now + Duration::from_secs(1))) else {
        return;
    };
    assert!(before.since(&after).is_err(), "time runs back");
    let Ok(counts) = after.since(&before) else { return };
    for figure in [counts.rooms, counts.players, counts.sleeps, counts.sent, counts.opened, counts.closed] {
        assert!(figure.is_finite() && figure >= 0.0, "{counts:?}");
    }
    assert!(counts.cpu_us.is_none_or(|cpu_us| cpu_us.is_finite() && cpu_us >= 0.0));
    assert!(counts.lateness_p99_ms.is_finite() && counts.lateness_p99_ms >= 0.0, "{counts:?}");
}
