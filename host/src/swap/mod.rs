//! Changing the rules of rooms that run.

mod in_force;

use std::sync::Arc;
use std::time::SystemTime;

use crate::events::EventSink;
use crate::events::payload::{ModuleLoaded, Payload};
use crate::rules::Module;

pub use in_force::{FAILED_MAX, FailedModule, InForce};

/// Tells the manager that a module was loaded.
pub(crate) fn tell_loaded(sink: &EventSink, module: &Arc<Module>) {
    let manifest = module.manifest();
    let loaded = ModuleLoaded {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        hash: module.hash().to_string(),
        abi: holeshot_abi::ABI_VERSION,
        bytes: module.wasm_bytes() as u64,
    };
    if let Err(error) = sink.emit(loaded.event(Some(&manifest.name), None, SystemTime::now())) {
        tracing::error!(kind = ModuleLoaded::KIND, %error, "an event is lost");
    }
}
