//! The rules that are in force in one open room, as everyone but its shard sees them: which module, whether it is on probation, which
//! modules failed there, and whose turn it is to swap. The shard writes it as the room tells it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::rooms::ModuleName;

/// Modules that failed in a room and are remembered. A modder who watches a file makes one per build; of more, the oldest is forgotten, and a swap of all
/// rooms tries it again.
pub const FAILED_MAX: usize = 64;

/// A module that failed in a room: in its trial, or in its probation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedModule {
    /// BLAKE3 of its file, hex.
    pub hash: String,
    /// The frame in which it failed, if it was one.
    pub frame: Option<u32>,
    /// How, as a word.
    pub reason: String,
    /// Whether the rules themselves failed, rather than could not take the room over.
    pub rules_failed: bool,
}

/// What is in force in a room.
#[derive(Debug)]
pub struct InForce {
    state: Mutex<State>,
    /// Whose turn it is to swap: one at a time, in the order of asking.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    module: Arc<ModuleName>,
    on_probation: bool,
    failed: Vec<FailedModule>,
}

impl InForce {
    /// A room that begins under a module.
    #[must_use]
    pub fn new(module: ModuleName) -> Self {
        let state = State { module: Arc::new(module), on_probation: false, failed: Vec::new() };
        Self { state: Mutex::new(state), turn: tokio::sync::Mutex::new(()) }
    }

    /// The module whose rules the room steps.
    #[must_use]
    pub fn module(&self) -> Arc<ModuleName> {
        Arc::clone(&self.lock().module)
    }

    /// Whether the module may still be rolled back.
    #[must_use]
    pub fn on_probation(&self) -> bool {
        self.lock().on_probation
    }

    /// How a module failed in this room, if it did.
    #[must_use]
    pub fn failed(&self, hash: &str) -> Option<FailedModule> {
        self.lock().failed.iter().find(|failed| failed.hash == hash).cloned()
    }

    /// Every module that failed in this room, the latest last.
    #[must_use]
    pub fn all_failed(&self) -> Vec<FailedModule> {
        self.lock().failed.clone()
    }

    /// Takes note that another module took over, on probation.
    pub fn swapped(&self, to: ModuleName) {
        let mut state = self.lock();
        // It was asked for in spite of its failure, and passed this time.
        state.failed.retain(|failed| failed.hash != to.hash);
        state.module = Arc::new(to);
        state.on_probation = true;
    }

    /// Takes note that the module passed its probation.
    pub fn kept(&self) {
        self.lock().on_probation = false;
    }

    /// Takes note that the module failed in its probation and `to` is in force again.
    pub fn rolled_back(&self, to: ModuleName, failed: FailedModule) {
        self.note_failed(failed);
        let mut state = self.lock();
        state.module = Arc::new(to);
        state.on_probation = false;
    }

    /// Takes note that a module failed.
    pub fn note_failed(&self, failed: FailedModule) {
        let mut state = self.lock();
        state.failed.retain(|other| other.hash != failed.hash);
        if state.failed.len() >= FAILED_MAX {
            state.failed.remove(0);
        }
        state.failed.push(failed);
    }

    /// Waits for the turn to swap, and keeps it until it is dropped.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(hash: &str) -> ModuleName {
        ModuleName { name: "drag-race".into(), version: "1.0.0".into(), hash: hash.into() }
    }

    fn failed(hash: &str) -> FailedModule {
        FailedModule { hash: hash.into(), frame: Some(7), reason: "trap".into(), rules_failed: true }
    }

    #[test]
    fn a_module_that_was_rolled_back_is_on_record_until_it_takes_over_again() {
        let in_force = InForce::new(module("a"));
        in_force.swapped(module("b"));
        assert!(in_force.on_probation());
        in_force.rolled_back(module("a"), failed("b"));
        assert_eq!((in_force.module().hash.as_str(), in_force.on_probation()), ("a", false));
        assert_eq!(in_force.failed("b"), Some(failed("b")));
        assert_eq!(in_force.failed("a"), None);
        in_force.swapped(module("b"));
        in_force.kept();
        assert_eq!((in_force.module().hash.as_str(), in_force.on_probation()), ("b", false));
        assert_eq!(in_force.all_failed(), []);
    }

    #[test]
    fn the_oldest_failure_is_forgotten_first_and_none_is_there_twice() {
        let in_force = InForce::new(module("a"));
        for n in 0..FAILED_MAX + 2 {
            in_force.note_failed(failed(&n.to_string()));
            in_force.note_failed(failed(&n.to_string()));
        }
        assert_eq!(in_force.all_failed().len(), FAILED_MAX);
        assert_eq!((in_force.failed("1"), in_force.failed("2").is_some()), (None, true));
    }
}
