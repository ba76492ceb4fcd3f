//! What a bench reads that it did not measure itself: the report of another commit, and what a host says of its shards. What is read stays the same when it is
//! written, and nothing that is worked out of it is no number.

use holeshot::bench::all::Report;
use holeshot::bench::compare::compare;
use holeshot::bench::shards::Shards;

pub(crate) fn target(input: &[u8]) {
    if let Ok(report) = Report::parse(input) {
        let written = serde_json::to_vec(&report).unwrap();
        assert_eq!(Report::parse(&written).unwrap(), report);
        let compared = compare(&report, &report);
        assert!(compared.gone.is_empty() && compared.new.is_empty(), "{compared:?}");
        for moved in &compared.moved {
            assert!(moved.change.abs() > moved.noise && !moved.noise.is_nan(), "{moved:?}");
        }
        let _text = (report.markdown(), compared.table());
    }
    let Some(shards) = serde_json::from_slice(input).ok().and_then(|answer| Shards::read(answer).ok()) else { return };
    let lateness = shards.lateness();
    assert!([lateness.p50_us, lateness.p99_us, lateness.p999_us, lateness.max_us].is_sorted(), "{lateness:?}");
    let nothing = shards.since(&shards);
    assert!(nothing.ticks == 0 && nothing.lateness_us.is_empty() && nothing.lateness().max_us == 0, "{nothing:?}");
}
