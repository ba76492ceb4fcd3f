//! The dyno's report: one HTML file with everything that was found, to open in a browser, to send, to print. It has no script and loads
//! nothing: styles are inside, charts are SVG.
//!
//! - `curves.rs`: torque, power and forces; `run.rs`: the best run over time; `ladder.rs`: cars and
//!   classes; `spreads.rs`: drivers' times.
//! - `car.rs`: a car's section; `together.rs`: what is told of the cars together, with `wins.rs`, who beats whom; `page.rs`: the page around it.
//! - What it shares with other pages (charts, tables, how it looks) is in [`crate::page`].
//!
//! What is told is found elsewhere (`sheet.rs`, `classes.rs`, `balance.rs`, `drivers.rs`). Nothing here runs a car, and nothing here reads a
//! clock: the same findings and date give the same bytes.

mod car;
mod curves;
mod ladder;
mod page;
mod run;
mod spreads;
mod together;
mod wins;

pub use crate::page::chart::ChartError;
pub use page::html;

use std::sync::Arc;

use drag_race::Car;

use super::Findings;

/// What a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// What was found.
    pub findings: &'a Findings,
    /// The cars as they ran: one for each sheet, in any order.
    pub cars: &'a [Arc<Car>],
    /// Where the cars come from: a file's name, or words for the catalogue.
    pub car_file: &'a str,
    /// The version of the program.
    pub version: &'a str,
    /// The day on which it is made, as it shall be printed.
    pub date: &'a str,
}

/// A report could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// A sheet tells of a car that is not among the cars.
    #[error("the findings tell of the car {id:?}, which is not among the {cars} cars of the report")]
    NoCar {
        /// The car's id.
        id: String,
        /// How many cars there are.
        cars: usize,
    },
    /// A chart could not be drawn.
    #[error("{car}: the chart {chart} could not be drawn")]
    Chart {
        /// The car, or what else the chart is about.
        car: String,
        /// Which chart.
        chart: &'static str,
        /// Why.
        #[source]
        source: ChartError,
    },
}
