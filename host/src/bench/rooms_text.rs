//! What `holeshot bench rooms` found out, as a table for people.

use std::fmt::Write as _;

use super::rooms::{Broke, INPUTS_MISSING_MAX, LATENESS_P99_MAX_US, Report, Row};
use super::{head, percent};
use crate::budget::report::columns;

impl Report {
    /// The figures as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = head(self.optimised);
        let _infallible = writeln!(
            text,
            "rooms of two at 50 Hz, journal and events on; processor time in us for each room-tick (seed {})\n",
            self.seed
        );
        let head = ["rooms", "CPU", "user", "system", "shard", "of a core", "limit", "of it", "times", "KiB per room"];
        let mut costs = vec![head.map(str::to_owned)];
        let head = [
            "rooms",
            "late p50 ms",
            "p99",
            "p99.9",
            "max",
            "inputs missing",
            "snapshots missed",
            "players late p99 ms",
            "of a core",
            "",
        ];
        let mut lateness = vec![head.map(str::to_owned)];
        for row in &self.rows {
            costs.push(costs_of(row));
            lateness.push(lateness_of(row));
        }
        columns(&mut text, &costs);
        text.push('\n');
        columns(&mut text, &lateness);
        text.push('\n');
        text.push_str(&self.words());
        text
    }

    fn words(&self) -> String {
        let mut text = String::new();
        let late_ms = LATENESS_P99_MAX_US / 1_000;
        let missing = percent(INPUTS_MISSING_MAX);
        let _ = writeln!(
            text,
            "Too many: one step in a hundred later than {late_ms} ms, more than {missing} of the inputs missing, frames lost, or snapshots left out."
        );
        let _ = match (self.holds, self.breaks) {
            (Some(holds), Some(breaks)) => writeln!(text, "{holds} rooms held, {breaks} were too many."),
            (Some(holds), None) => writeln!(text, "{holds} rooms held, and more were not tried."),
            (None, Some(breaks)) => writeln!(text, "{breaks} rooms were too many, and fewer were not tried."),
            (None, None) => Ok(()),
        };
        if let Some(row) = self.rows.iter().find(|row| Some(row.rooms) == self.half) {
            let _ = writeln!(
                text,
                "At half of that, {} rooms: {:.1} us for a room-tick, {:.2} times the limit; one step in a hundred later than {:.2} ms; {:.1} KiB per room.",
                row.rooms,
                row.cpu.us,
                row.ratio,
                row.lateness.p99_us as f64 / 1_000.0,
                row.memory_kib
            );
        }
        if let Some(row) = self.rows.last() {
            let _ = writeln!(
                text,
                "limit: the same datagrams (in each room-tick {:.2} of {:.0} bytes received, {:.2} of {:.0} bytes sent) by a bare loop: received, opened, sealed, sent.",
                row.received_per_tick, row.received_bytes, row.sent_per_tick, row.sent_bytes
            );
            let _ = writeln!(
                text,
                "KiB per room: memory in RAM beyond that of the empty host, pages that several rooms only read counted once; besides, the system's tables for it: {:.1}.",
                row.page_tables_kib
            );
        }
        let short = |row: &&Row| row.limit.received < 0.98 || row.limit.sent < 0.98;
        for row in self.rows.iter().filter(short) {
            let _ = writeln!(
                text,
                "With {} rooms the bare loop received {} and sent {} of what it should have: its processor time is too small by as much.",
                row.rooms,
                percent(row.limit.received),
                percent(row.limit.sent)
            );
        }
        let late: Vec<String> =
            self.rows.iter().filter(|row| row.players_were_late).map(|row| row.rooms.to_string()).collect();
        if !late.is_empty() {
            let _ = writeln!(
                text,
                "The players, on the same machine, were late with {} rooms: what is missing there may be theirs and not the host's.",
                late.join(", ")
            );
        }
        text
    }
}

fn costs_of(row: &Row) -> [String; 10] {
    let us = |us: f64| format!("{us:.1}");
    [
        row.rooms.to_string(),
        us(row.cpu.us),
        us(row.cpu.user_us),
        us(row.cpu.system_us),
        row.shard_us.map_or_else(|| "-".to_owned(), us),
        percent(row.cpu.of_core),
        us(row.limit.cpu.us),
        percent(row.limit.cpu.of_core),
        format!("{:.2}", row.ratio),
        format!("{:.1}", row.memory_kib),
    ]
}

fn lateness_of(row: &Row) -> [String; 10] {
    let ms = |us: u64| format!("{:.2}", us as f64 / 1_000.0);
    let all = row.inputs.saturating_add(row.inputs_missing);
    let snapshots = row.players.snapshots.saturating_add(row.players.snapshots_missed);
    let part = |part: u64, all: u64| percent(part as f64 / all.max(1) as f64);
    let broke = match row.broke {
        None => "",
        Some(Broke::Late) => "too late",
        Some(Broke::Inputs) => "inputs lost",
        Some(Broke::Frames) => "frames lost",
        Some(Broke::Snapshots) => "snapshots left out",
    };
    [
        row.rooms.to_string(),
        ms(row.lateness.p50_us),
        ms(row.lateness.p99_us),
        ms(row.lateness.p999_us),
        ms(row.lateness.max_us),
        part(row.inputs_missing, all),
        part(row.players.snapshots_missed, snapshots),
        ms(row.players_late_us.p99),
        percent(row.players_of_core),
        broke.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rooms::{Cpu, Limit};
    use crate::bench::shards::Lateness;
    use crate::load::Counts;
    use crate::load::observed::Quantiles;

    #[test]
    fn the_table_says_what_was_measured_and_who_was_late() {
        let cpu = |us: f64| Cpu { us, user_us: us / 2.0, system_us: us / 2.0, of_core: us / 100.0 };
        let row = |rooms: usize, broke: Option<Broke>| Row {
            rooms,
            seconds: 2.0,
            ticks: 100 * rooms as u64,
            ticks_lost: 0,
            cpu: cpu(18.2),
            shard_us: Some(14.0),
            shard_us_range: Some((13.0, 15.0)),
            lateness: Lateness { p50_us: 40, p99_us: 6_100, p999_us: 7_000, max_us: 9_000 },
            inputs: 199,
            inputs_missing: 1,
            players: Counts { snapshots: 99, snapshots_missed: 1, ..Counts::default() },
            players_late_us: Quantiles { p99: 12_000, ..Quantiles::default() },
            input_delay_us: Quantiles::default(),
            players_of_core: 0.5,
            memory_kib: 41.5,
            page_tables_kib: 8.2,
            received_per_tick: 2.08,
            received_bytes: 88.0,
            sent_per_tick: 2.0,
            sent_bytes: 120.0,
            limit: Limit { cpu: cpu(9.1), received: 1.0, sent: 0.5, late_us_max: 100 },
            ratio: 2.0,
            broke,
            players_were_late: broke.is_some(),
        };
        let report = Report {
            optimised: true,
            seed: 5,
            rows: vec![row(100, None), row(200, Some(Broke::Late))],
            holds: Some(100),
            breaks: Some(200),
            half: Some(100),
        };
        let table = report.table();
        for words in [
            "seed 5",
            "18.2",
            "9.1",
            "2.00",
            "41.5",
            "6.10",
            "0.50 %",
            "1.00 %",
            "too late",
            "100 rooms held, 200 were too many",
            "At half of that, 100 rooms: 18.2 us for a room-tick, 2.00 times the limit",
            "late with 200 rooms",
            "With 100 rooms the bare loop received 100.00 % and sent 50.00 %",
            "tables for it: 8.2",
        ] {
            assert!(table.contains(words), "{words}: {table}");
        }
    }
}
