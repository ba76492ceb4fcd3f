//! The figures of each bench that two commits are compared by.

use serde_json::Value;

use super::figure::{Figure, Told};
use super::steer::Kind;
use super::{events, flood, replay, rooms, seal, snapshots, steer, swap, tick};

macro_rules! told {
    ($report:ty, $figures:expr) => {
        impl Told for $report {
            fn json(&self) -> serde_json::Result<Value> {
                serde_json::to_value(self)
            }

            fn table(&self) -> String {
                // Its own, not this one.
                <$report>::table(self)
            }

            fn figures(&self) -> Vec<Figure> {
                $figures(self)
            }
        }
    };
}

told!(tick::Report, |report: &tick::Report| {
    let mut figures = vec![Figure::cost("tick/empty call", report.empty_call)];
    for row in &report.rows {
        let name = format!("tick/{}/{} players", row.game, row.players);
        let pair = |what: &str, pair: tick::Pair| {
            Figure::cost(format!("{name}/{what}"), pair.wasm).of_limit(pair.native.median_ns)
        };
        figures.push(pair("hot", row.hot));
        figures.push(pair("many rooms", row.cold));
        if let Some(memory) = row.memory {
            figures.push(Figure::less(format!("{name}/memory"), "KiB", memory.wasm_kib));
        }
        // The same on every machine.
        figures.push(Figure::less(format!("{name}/fuel of the dearest"), "fuel", row.fuel_max as f64));
    }
    figures
});

told!(seal::Report, |report: &seal::Report| {
    let figure = |row: &seal::Row| {
        Figure::cost(format!("seal/{} {} bytes", row.what, row.payload_bytes), row.host).of_limit(row.limit.median_ns)
    };
    report.rows.iter().map(figure).collect()
});

told!(snapshots::Report, |report: &snapshots::Report| {
    let mut figures = Vec::new();
    for row in &report.rows {
        let snapshots::Row { game, players, delay_frames, whole, delta, .. } = row;
        let seen_by = if row.viewer == snapshots::Viewer::Player { "player" } else { "spectator" };
        let name = format!("snapshots/{game}/{players} players/{seen_by}/after {delay_frames}");
        // Bytes are the same on every machine.
        figures.push(Figure::less(format!("{name}/bytes"), "bytes", delta.bytes).of_limit(whole.bytes));
        figures.push(Figure::less(format!("{name}/datagrams"), "datagrams", delta.datagrams).of_limit(whole.datagrams));
        figures.push(Figure::cost(format!("{name}/host"), delta.host).of_limit(whole.host.median_ns));
    }
    figures
});

told!(replay::Report, |report: &replay::Report| {
    let figure = |row: &replay::Row| {
        let (best, middle) = (row.wasm.min_us_per_frame, row.wasm.median_us_per_frame);
        Figure::less(format!("replay/{} players", row.players), "us", middle)
            .within((best, middle + (middle - best).max(0.0)))
            .of_limit(row.native.median_us_per_frame)
    };
    report.rows.iter().map(figure).collect()
});

told!(swap::Report, |report: &swap::Report| {
    let us = |name: &str, us: u64| Figure::less(format!("swap/{name}"), "us", us as f64);
    vec![
        us("pause p50", report.pause.p50_us),
        us("pause p99", report.pause.p99_us),
        us("trial p50", report.trial.p50_us),
        us("late p99", report.with.late.p99_us).of_limit(report.without.late.p99_us as f64),
        Figure::less("swap/compile", "ms", report.compile_ms),
    ]
});

told!(events::Report, |report: &events::Report| {
    let mut figures = Vec::new();
    for way in &report.ways {
        let name = format!("events/{}", way.broker);
        figures.push(
            Figure::more(format!("{name}/rate"), "events/s", way.events_per_s)
                .within(way.events_per_s_range)
                .of_limit(report.raw_per_s),
        );
        figures.extend(way.cpu_us_per_event.map(|us| Figure::less(format!("{name}/CPU"), "us", us)));
        figures.push(Figure::less(format!("{name}/committed p50"), "us", way.latency_p50_us as f64));
    }
    figures
});

told!(steer::Report, |report: &steer::Report| {
    let Kind { cpu_ns, cpu_best_ns, .. } = report.steered;
    let range = (cpu_best_ns, cpu_ns + (cpu_ns - cpu_best_ns).max(0.0));
    vec![
        Figure::less("steer/steered", "ns", cpu_ns).within(range),
        Figure::less("steer/handed over", "ns", report.handed_over.cpu_ns),
    ]
});

told!(flood::Report, |report: &flood::Report| {
    let late = |phase: &flood::Phase| phase.ticks.late.p99_us as f64;
    let missing = |phase: &flood::Phase| {
        phase.inputs_missing as f64 * 100.0 / phase.inputs_fresh.saturating_add(phase.inputs_missing).max(1) as f64
    };
    vec![
        Figure::less("flood/late p99", "us", late(&report.with)).of_limit(late(&report.without)),
        Figure::less("flood/inputs missing", "%", missing(&report.with)).of_limit(missing(&report.without)),
    ]
});

told!(rooms::Report, |report: &rooms::Report| {
    let mut figures = Vec::new();
    if let Some(holds) = report.holds {
        figures.push(Figure::more("rooms/held", "rooms", holds as f64));
    }
    for row in report.rows.iter().filter(|row| row.broke.is_none()) {
        let name = format!("rooms/{}", row.rooms);
        figures.push(Figure::less(format!("{name}/CPU"), "us", row.cpu.us).of_limit(row.limit.cpu.us));
        if let (Some(us), Some(range)) = (row.shard_us, row.shard_us_range) {
            figures.push(Figure::less(format!("{name}/shard"), "us", us).within(range).of_limit(row.limit.cpu.us));
        }
        figures.push(Figure::less(format!("{name}/late p99"), "us", row.lateness.p99_us as f64));
        figures.push(Figure::less(format!("{name}/memory"), "KiB", row.memory_kib));
    }
    figures
});
