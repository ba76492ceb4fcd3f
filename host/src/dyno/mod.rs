//! The dyno: finds the quickest quarter mile of each car under the rules that will referee the race, and says how it is driven. A workshop's tool: it
//! runs the module in WebAssembly, without a host, at full speed on all cores.
//!
//! - [`strip`]: one car alone in an instance of the module, driven by a plan, to a [`Run`].
//! - [`search`]: the plan with the smallest elapsed time, as [`Best`], proven to be a local optimum.
//! - [`prove`]: every plan of a coarse grid, against a search.
//! - [`sheet`]: what is told of a car, as [`Sheet`]: the one type that tables, CSV, JSON and pictures are made from.
//! - [`classes`]: cars that may race each other; [`balance`]: what brings a car to its class's target; [`drivers`]: who wins.
//!
//! It knows the drag race and no other game. Nothing here serves players, and nothing that serves players uses it.

mod attempt;
pub mod balance;
pub mod balance_file;
pub mod classes;
pub mod drivers;
mod error;
pub mod limits;
pub mod prove;
pub mod report;
mod rooms;
pub mod search;
pub mod sheet;
pub mod strip;
pub mod text;
mod text_classes;

use std::sync::Arc;

use drag_race::Car;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::rules::Module;
pub use balance::Proposal;
pub use classes::{Classes, Method, Timed};
pub use drivers::{Draw, Drivers};
pub use error::{StripError, Work};
pub use prove::Proof;
pub use search::Best;
pub use sheet::Sheet;
pub use strip::{Run, RunPlan, Sample, Strip};

#[cfg(test)]
mod tests;

/// All that the dyno found: what `--json` prints. The same cars and module give the same bytes, with any number of threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// The rules that the cars ran under.
    pub module: ModuleFacts,
    /// A sheet per car, in the order of the car file.
    pub sheets: Vec<Sheet>,
    /// The proof of the search for one car, where it was asked for.
    pub proof: Option<Proof>,
    /// The cars in classes.
    pub classes: Classes,
    /// What would bring the cars to their classes' targets, where it was asked for: one entry per car that is off.
    pub balance: Option<Vec<Proposal>>,
    /// What drivers make of the cars, where they were asked for.
    pub drivers: Option<Drivers>,
}

/// The rules that the cars ran under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleFacts {
    /// The name in the module's manifest.
    pub name: String,
    /// The version in its manifest.
    pub version: String,
    /// The BLAKE3 hash of its file, 64 hexadecimal digits.
    pub hash: String,
    /// Its ticks per second.
    pub tick_hz: u32,
}

impl ModuleFacts {
    /// The facts of a module.
    #[must_use]
    pub fn of(module: &Module) -> Self {
        let manifest = module.manifest();
        Self {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            hash: module.hash().to_string(),
            tick_hz: manifest.tick_hz,
        }
    }
}

/// Finds the best of each car under a module, on all cores, and puts the cars into classes. Takes about a second per car and core.
///
/// # Errors
/// That of the first car, in their order, that cannot be run: see [`StripError`].
pub fn run(module: &Arc<Module>, cars: &[Arc<Car>], method: Method, work: &Arc<Work>) -> Result<Findings, StripError> {
    let one = |car: &Arc<Car>| {
        let strip = Strip::open(module, car, work)?;
        let sheet = Sheet::new(&strip, search::search(&strip)?);
        work.note_car();
        sheet
    };
    // All of them first: which of several errors is told must not depend on the threads.
    let sheets: Vec<Result<Sheet, StripError>> = cars.par_iter().map(one).collect();
    let sheets: Vec<Sheet> = sheets.into_iter().collect::<Result<_, _>>()?;
    let classes = Classes::of(method, &timed(&sheets));
    Ok(Findings { module: ModuleFacts::of(module), sheets, proof: None, classes, balance: None, drivers: None })
}

/// The times of the sheets.
fn timed(sheets: &[Sheet]) -> Vec<Timed> {
    let time = |sheet: &Sheet| Timed {
        car_id: sheet.car.id.clone(),
        quarter_mile_s: sheet.best.run.elapsed_s,
        published_s: sheet.published.map(|published| published.quarter_mile_s),
    };
    sheets.iter().map(time).collect()
}
