//! The manifest of a backup: what passes names files of a data folder and nothing else, and is written with the same meaning.

use std::path::{Component, Path};

pub(crate) fn target(input: &[u8]) {
    let manifest = match holeshot::fuzzing::backup_manifest(input) {
        Ok(manifest) => manifest,
        Err(problem) => return assert!(problem.len() <= 10 * input.len() + 512, "{} bytes of error", problem.len()),
    };
    for (path, file) in &manifest.files {
        let parts: Vec<Component<'_>> = Path::new(path).components().collect();
        assert!((1..=3).contains(&parts.len()), "{path:?}");
        assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))), "{path:?} leads out of its folder");
        assert!(file.blake3.len() == 64 && !path.contains(['\\', '\0']));
    }
    let (journals, modules) = manifest.counts();
    assert!(journals + modules <= manifest.files.len());
    assert!(manifest.files.values().all(|file| file.bytes <= manifest.bytes()));
    let written = serde_json::to_vec(&manifest).expect("a manifest is plain JSON");
    assert_eq!(holeshot::fuzzing::backup_manifest(&written), Ok(manifest));
}
