//! Every input of every corpus, and mutations of them from a seed that is printed. `HOLESHOT_FUZZ_SEED` runs a seed again, and
//! `HOLESHOT_FUZZ_MUTATIONS` more than usual. What the mutations cannot do is follow coverage: for that there is `explore.sh`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use holeshot_fuzz::{TARGETS, find, input_bytes_max};

/// Mutations of a target. All targets together stay within seconds; where an input takes a database or key exchanges, they are fewer.
fn mutations(name: &str) -> usize {
    let asked = std::env::var("HOLESHOT_FUZZ_MUTATIONS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(match name {
        "event" => 100,
        "handshake" | "journal" | "manifest" => 500,
        _ => 2_000,
    })
}

/// Files that a corpus may have, and bytes of all corpora together: a corpus is part of every clone.
const CORPUS_FILES_MAX: usize = 100;
const CORPORA_BYTES_MAX: u64 = 1 << 20;
const FILE_BYTES_MAX: usize = 4_096;

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The files of a corpus, in the order of their names.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = corpora().join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| {
        panic!(
            "no corpus {}: {error}; make one with `cargo test -p holeshot-fuzz --test seeds -- --ignored`",
            folder.display()
        )
    });
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Small numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Numbers at the edges of what fields hold.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];

/// Changes an input in one to four places.
fn mutate(dice: &mut Dice, input: &mut Vec<u8>, other: &[u8], bytes_max: usize) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(input.len() + 1);
        let end = (at + 1 + dice.below(16)).min(input.len());
        match dice.below(8) {
            0 if at < input.len() => input[at] ^= 1 << dice.below(8),
            1 if at < input.len() => input[at] = dice.next() as u8,
            2 => input.insert(at, dice.next() as u8),
            3 => drop(input.drain(at.min(end)..end)),
            4 => {
                let piece = input[at.min(end)..end].to_vec();
                input.splice(at..at, piece);
            }
            5 => {
                let from = dice.below(other.len() + 1);
                let to = (from + dice.below(64)).min(other.len());
                input.splice(at.min(end)..end, other[from..to].iter().copied());
            }
            6 => {
                let edge = EDGES[dice.below(EDGES.len())].to_le_bytes();
                let width = 1 << dice.below(4);
                input.iter_mut().skip(at).zip(&edge[..width]).for_each(|(byte, edge)| *byte = *edge);
            }
            _ => input.truncate(at),
        }
    }
    input.truncate(bytes_max);
}

/// Runs a target on an input; what fails is told with the input, so that it can become a file.
fn run(name: &str, what: &str, input: &[u8]) {
    let target = find(name).expect("the name of a target");
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        let path = std::env::temp_dir().join(format!("holeshot-fuzz-{name}-{}", std::process::id()));
        std::fs::write(&path, input).unwrap();
        panic!(
            "{name}: {what} fails; the input is in {}. Mend it and keep the file in {}",
            path.display(),
            corpora().join(name).display()
        );
    }
}

fn replay(name: &str) {
    let files = corpus(name);
    assert!(
        files.len() <= CORPUS_FILES_MAX,
        "{name}: {} files; see README.md on how to make a corpus smaller",
        files.len()
    );
    for (path, input) in &files {
        assert!(input.len() <= FILE_BYTES_MAX, "{} has {} bytes", path.display(), input.len());
        run(name, &path.display().to_string(), input);
    }
    run(name, "the empty input", &[]);
    let drawn = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = std::env::var("HOLESHOT_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(drawn);
    let count = mutations(name);
    println!("{name}: {} files, then {count} mutations with HOLESHOT_FUZZ_SEED={seed}", files.len());
    let mut dice = Dice(seed);
    for at in 0..count {
        let mut input = files[dice.below(files.len())].1.clone();
        let other = &files[dice.below(files.len())].1;
        mutate(&mut dice, &mut input, other, input_bytes_max(name));
        run(name, &format!("mutation {at} of HOLESHOT_FUZZ_SEED={seed}"), &input);
    }
}

/// A test for each target, so that a failure names it and they run side by side.
macro_rules! targets {
    ($($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )+

        #[test]
        fn every_target_is_replayed_and_every_corpus_has_a_target() {
            let replayed = [$(stringify!($name)),+];
            let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(targets, replayed);
            let mut folders: Vec<String> = std::fs::read_dir(corpora())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            folders.sort();
            assert_eq!(folders, replayed);
            let bytes: u64 = targets.iter().flat_map(|name| corpus(name)).map(|(_, input)| input.len() as u64).sum();
            assert!(bytes <= CORPORA_BYTES_MAX, "the corpora have {bytes} bytes together");
        }
    };
}

targets!(
    arena,
    backup,
    budget_model,
    car_file,
    config,
    datagram,
    delta,
    event,
    figures,
    forwarded,
    handshake,
    journal,
    manifest,
    measured,
    message,
    module,
    output,
    records,
    scenario,
    ticket
);
