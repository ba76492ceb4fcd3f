//! libFuzzer around one of the targets, which the variable HOLESHOT_FUZZ_TARGET names. `../explore.sh` builds and runs it.
#![no_main]

use std::sync::LazyLock;

use holeshot_fuzz::{TARGETS, Target, find};

const VARIABLE: &str = "HOLESHOT_FUZZ_TARGET";

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var(VARIABLE).unwrap_or_default();
    find(&name).unwrap_or_else(|| {
        let known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("{VARIABLE} is {name:?}; the targets are {}", known.join(", "));
        std::process::exit(2)
    })
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| TARGET(input));
