//! The dyno: finds the quickest quarter mile of each car under the rules that will referee the race, and says how it is driven. A workshop's tool: it
//! runs the module in WebAssembly, without a host, at full speed on all cores.
//!
//! - [`strip`]: one car alone in an instance of the module, driven by a plan, to a [`Run`].
//! - [`search`]: the plan with the smallest elapsed time, as [`Best`], proven to be a local optimum.
//! - [`sheet`]: what is told of a car, as [`Sheet`]: the one type that tables, CSV, JSON and pictures are made from.
//!
//! It knows the drag race and no other game. Nothing here serves players, and nothing that serves players uses it.

pub mod report;
pub mod search;
pub mod sheet;
pub mod strip;

pub use search::Best;
pub use sheet::Sheet;
pub use strip::{Run, RunPlan, Sample};

use serde::{Deserialize, Serialize};

/// All that the dyno found: what `--json` prints. The same cars and module give the same bytes, with any number of threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// The rules that the cars ran under.
    pub module: ModuleFacts,
    /// A sheet per car, in the order of the car file.
    pub sheets: Vec<Sheet>,
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
