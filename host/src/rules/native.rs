//! Rules that are linked into this program, behind the same trait and the same records as those in WebAssembly: the yardstick of
//! `holeshot bench tick`, and what a test holds the wasm's bytes against. There is no budget and no fence here: rooms of players run in wasm.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use holeshot_abi::{Setup, write_restore};
use holeshot_guest::export::Instance;
use holeshot_room::{Fault, FaultKind, RestoreError, Rules};

use super::InstantiateError;

/// One room of native rules `R`. A panic in them is a fault, as a trap is in wasm.
#[derive(Debug)]
pub struct NativeRules<R: holeshot_guest::Rules> {
    instance: Instance<R>,
    ended_by: Option<Fault>,
}

impl<R: holeshot_guest::Rules> NativeRules<R> {
    /// Begins a room.
    ///
    /// # Errors
    /// The rules refuse the setup, or panic.
    pub fn new(setup: &Setup) -> Result<Self, InstantiateError> {
        let mut record = Vec::new();
        setup.write(&mut record)?;
        let mut instance = Instance::new();
        match catch_unwind(AssertUnwindSafe(|| instance.init(&record))) {
            Ok(Ok(())) => Ok(Self { instance, ended_by: None }),
            Ok(Err(text)) => Err(InstantiateError::Refused { text }),
            Err(panic) => Err(InstantiateError::Faulted(fault("init", panic.as_ref()))),
        }
    }

    /// The state as JSON text; as [`WasmRules::describe`](super::WasmRules::describe).
    ///
    /// # Errors
    /// The rules panic: their state cannot be JSON.
    pub fn describe(&mut self) -> Result<Option<String>, Fault> {
        self.alive()?;
        let instance = &mut self.instance;
        let described = catch_unwind(AssertUnwindSafe(|| instance.describe().to_vec()));
        let bytes = described.map_err(|panic| self.end("describe", panic.as_ref()))?;
        super::description(&bytes).map(Some)
    }

    fn alive(&self) -> Result<(), Fault> {
        match &self.ended_by {
            None => Ok(()),
            Some(fault) => {
                Err(Fault { message: format!("this instance ended earlier: {}", fault.message), ..fault.clone() })
            }
        }
    }

    fn end(&mut self, call: &str, panic: &(dyn Any + Send)) -> Fault {
        let fault = fault(call, panic);
        self.ended_by = Some(fault.clone());
        fault
    }
}

impl<R: holeshot_guest::Rules> Rules for NativeRules<R> {
    fn tick(&mut self, record: &[u8]) -> Result<&[u8], Fault> {
        self.alive()?;
        let instance = &mut self.instance;
        let step = move || {
            // Moved in, so that the output may outlive the closure.
            let instance = instance;
            instance.tick(record)
        };
        match catch_unwind(AssertUnwindSafe(step)) {
            Ok(output) => Ok(output),
            Err(panic) => {
                let fault = fault("tick", panic.as_ref());
                self.ended_by = Some(fault.clone());
                Err(fault)
            }
        }
    }

    fn save(&mut self) -> Result<Vec<u8>, Fault> {
        self.alive()?;
        let instance = &mut self.instance;
        let saved = catch_unwind(AssertUnwindSafe(|| instance.save().to_vec()));
        saved.map_err(|panic| self.end("save", panic.as_ref()))
    }

    fn restore(&mut self, state_version: u32, state: &[u8]) -> Result<(), RestoreError> {
        self.alive()?;
        let mut record = Vec::new();
        write_restore(state_version, state, &mut record);
        let instance = &mut self.instance;
        match catch_unwind(AssertUnwindSafe(|| instance.restore(&record))) {
            Ok(result) => result.map_err(RestoreError::Refused),
            Err(panic) => Err(RestoreError::Fault(self.end("restore", panic.as_ref()))),
        }
    }
}

fn fault(call: &str, panic: &(dyn Any + Send)) -> Fault {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a text");
    Fault::new(FaultKind::Trap, format!("{call}: {text}"))
}
