//! Modules, as they are looked at before anything of them is compiled.

use holeshot_abi::{MEMORY_BYTES_MAX, names};

pub(crate) fn target(input: &[u8]) {
    let facts = holeshot::rules::facts(input);
    // Each name takes at least a byte of the file; escaped it may become some more.
    let names_bytes: usize = facts.imports.iter().chain(&facts.exports).map(String::len).sum();
    assert!(names_bytes <= 10 * input.len() + 16, "{names_bytes} bytes of names");
    match holeshot::fuzzing::inspect(input) {
        Ok(()) => {
            assert!(facts.memory_bytes <= MEMORY_BYTES_MAX as u64);
            let log = format!("{}.{}", names::IMPORT_MODULE, names::LOG);
            assert!(facts.imports.iter().all(|import| *import == log));
            for name in [names::MEMORY, names::TICK, names::INIT, names::SAVE, names::RESTORE] {
                assert!(facts.exports.iter().any(|export| export == name), "no export {name}");
            }
        }
        Err(error) => assert!(error.to_string().len() <= 2_048, "an error is an answer to a request"),
    }
}
