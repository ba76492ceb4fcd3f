//! Scenario files: what is taken is within bounds that the text pays for, what is not is told with a line that is there.

use std::sync::LazyLock;

use holeshot_abi::Manifest;

static MANIFEST: LazyLock<Manifest> = LazyLock::new(|| Manifest::new("drag-race", "1.0.0", 1..=8, 8));

pub(crate) fn target(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match holeshot::fuzzing::scenario(text, &MANIFEST) {
        Ok([frames, plays, deeds, expectations]) => {
            assert!(frames <= MANIFEST.frames_max as usize + 1);
            assert!(plays + deeds + expectations <= text.len(), "each takes at least a byte");
        }
        Err(error) => {
            assert!(error.line.is_none_or(|line| (1..=text.lines().count() + 1).contains(&line)), "{error}");
            assert!(!error.problem.is_empty());
        }
    }
}
