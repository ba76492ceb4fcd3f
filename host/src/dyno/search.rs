//! The search for the plan with the smallest elapsed time. What one plan gives is `strip.rs`' affair.

use serde::{Deserialize, Serialize};

use super::strip::Run;

/// The best that a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The quickest run, with its plan.
    pub run: Run,
    /// Runs that the search made, those included that were stopped on the way.
    pub evaluations: u64,
    /// The last step of the search: whether a small change of the plan would help.
    pub optimum: LocalOptimum,
}

/// What the neighbours of a plan give: each shift one tick earlier or later, launch speed and grip one step less or more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalOptimum {
    /// Whether no neighbour is quicker. False only where the search came to its bound before.
    pub proven: bool,
    /// Each neighbour.
    pub neighbours: Vec<Neighbour>,
}

/// A plan that differs from the best by one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    /// What is other: `shift 1-2 a tick earlier`, `launch 50 rpm more`.
    pub change: String,
    /// What it costs, in ms; never negative for a proven optimum. None if such a run has no time: it left the line by itself, or never arrived.
    pub costs_ms: Option<f64>,
}
