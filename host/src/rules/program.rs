//! A module and the setup of one room: what a room's supervisor begins fresh instances from. What happens to an instance is in
//! `instance.rs` and `native.rs`.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use holeshot_abi::{Manifest, Setup};
use holeshot_room::{BeginError, Program, Rules};

use super::error::InstantiateError;
use super::module::{Module, ModuleHash};
use super::native::NativeRules;

/// A module in WebAssembly for one room.
#[derive(Debug, Clone)]
pub struct RoomProgram {
    module: Arc<Module>,
    setup: Arc<Setup>,
    room: Arc<str>,
}

impl RoomProgram {
    /// A module for the room of this name, with its setup.
    #[must_use]
    pub const fn new(module: Arc<Module>, setup: Arc<Setup>, room: Arc<str>) -> Self {
        Self { module, setup, room }
    }

    /// The module.
    #[must_use]
    pub const fn module(&self) -> &Arc<Module> {
        &self.module
    }
}

impl Program for RoomProgram {
    fn hash(&self) -> [u8; 32] {
        *self.module.hash().as_bytes()
    }

    fn manifest(&self) -> &Manifest {
        self.module.manifest()
    }

    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn begin(&self) -> Result<Box<dyn Rules + Send>, BeginError> {
        Ok(Box::new(self.module.instantiate(&self.setup, &self.room)?))
    }

    fn with_setup(&self, setup: Arc<Setup>) -> Option<Arc<dyn Program>> {
        Some(Arc::new(Self { setup, ..self.clone() }))
    }
}

/// Rules that are linked into this program, for one room.
pub struct NativeProgram<R> {
    hash: ModuleHash,
    manifest: Manifest,
    setup: Setup,
    rules: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for NativeProgram<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeProgram")
            .field("hash", &self.hash)
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}

impl<R: holeshot_guest::Rules> NativeProgram<R> {
    /// The rules for a room with this setup. Native rules have no file to be named by: `hash` is what they are called.
    #[must_use]
    pub fn new(setup: Setup, hash: ModuleHash) -> Self {
        Self { hash, manifest: R::manifest(), setup, rules: PhantomData }
    }
}

impl<R: holeshot_guest::Rules + Send + 'static> Program for NativeProgram<R>
where
    R::Input: Send,
{
    fn hash(&self) -> [u8; 32] {
        *self.hash.as_bytes()
    }

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn begin(&self) -> Result<Box<dyn Rules + Send>, BeginError> {
        Ok(Box::new(NativeRules::<R>::new(&self.setup)?))
    }
}

impl From<InstantiateError> for BeginError {
    fn from(error: InstantiateError) -> Self {
        match error {
            InstantiateError::Refused { text } => Self::Refused(text),
            InstantiateError::Setup(malformed) => Self::Refused(malformed.to_string()),
            InstantiateError::Faulted(fault) => Self::Fault(fault),
            InstantiateError::HostFull { .. } => Self::NoInstance(error.to_string()),
        }
    }
}
