//! `holeshot new`: a crate of rules that builds by itself. The SDK and the default rules are on no registry, so their sources are in this binary and
//! are written below `vendor/` of the new crate, with manifests that need no workspace.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Path from the root of this repository, with `/`, and text.
static SOURCES: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/kit.rs"));

/// The crate itself, as path and text. Its name is `my-rules` in here, and is replaced.
static TEMPLATE: [(&str, &str); 9] = [
    ("Cargo.toml", include_str!("template/manifest.toml")),
    (".cargo/config.toml", include_str!("template/cargo-config.toml")),
    ("rust-toolchain.toml", include_str!("template/toolchain.toml")),
    (".gitignore", include_str!("template/gitignore")),
    ("README.md", include_str!("template/README.md")),
    ("src/lib.rs", include_str!("template/src/lib.rs")),
    ("tests/rules.rs", include_str!("template/tests/rules.rs")),
    ("scenarios/red-light.toml", include_str!("template/scenarios/red-light.toml")),
    ("scenarios/lost-inputs.toml", include_str!("template/scenarios/lost-inputs.toml")),
];

/// Where each package of the SDK goes: its folder in this repository, and its name.
const VENDORED: [(&str, &str); 3] =
    [("sdk/abi", "holeshot-abi"), ("sdk/guest", "holeshot-guest"), ("game-logic/drag-race", "drag-race")];

/// Longest name in bytes: the module's version, at most 32 bytes, ends with it.
pub const NAME_BYTES_MAX: usize = 20;

/// Names that a package may not have: words of Rust, crates that it links, devices of Windows.
const RESERVED: [&str; 71] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "aux",
    "await",
    "become",
    "box",
    "break",
    "con",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "drag-race",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "holeshot-abi",
    "holeshot-guest",
    "if",
    "impl",
    "in",
    "let",
    "libm",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "nul",
    "override",
    "postcard",
    "priv",
    "prn",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "serde",
    "serde-json",
    "static",
    "std",
    "struct",
    "super",
    "target",
    "test",
    "toml",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "union",
    "unsafe",
    "unsized",
    "use",
    "vendor",
    "virtual",
    "where",
    "while",
    "yield",
];

/// Why there is no new crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NewError {
    /// The name cannot be that of a package.
    #[error(
        "{name:?} cannot be the name of a crate of rules: {problem}. A name has 1 to {NAME_BYTES_MAX} characters of a-z, 0-9 and single dashes between \
         them, and begins with a letter; for example `my-rules`"
    )]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The folder is there already; nothing in it was touched.
    #[error(
        "{folder} exists already, and nothing in it was touched; choose another name, or another folder with --dir"
    )]
    Exists {
        /// The folder.
        folder: String,
    },
    /// A file cannot be written. What was written before it is removed.
    #[error("{path} cannot be written: {problem}")]
    Unwritable {
        /// The file or folder.
        path: String,
        /// What the system says.
        problem: String,
    },
    /// The sources in this binary are not what this code expects: a fault of the build.
    #[error("the sources in this binary cannot be used: {0}")]
    Sources(String),
}

/// A crate that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCrate {
    /// Its folder.
    pub folder: PathBuf,
    /// Where its build puts the module, from the folder.
    pub module: String,
    /// How many files were written.
    pub files: usize,
}

/// Writes a crate of rules named `name` into `folder`, which must not be there yet. The folders above it are made. Either all of it is there
/// afterwards, or nothing.
///
/// # Errors
/// The name is none, the folder is there already, or the system does not let it be written.
pub fn write(name: &str, folder: &Path) -> Result<NewCrate, NewError> {
    check_name(name)?;
    let unwritable = |path: &Path, error: &std::io::Error| NewError::Unwritable {
        path: path.display().to_string(),
        problem: error.to_string(),
    };
    let exists = || NewError::Exists { folder: folder.display().to_string() };
    // Also true of a dangling link.
    if folder.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let files = files(name)?;
    // Written beside it and then renamed, so that an error leaves nothing half done.
    let Some(last) = folder.file_name() else { return Err(exists()) };
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(last);
    hidden.push(format!(".{}.tmp", std::process::id()));
    let temporary = above.join(hidden);
    std::fs::create_dir_all(above).map_err(|error| unwritable(above, &error))?;
    std::fs::create_dir(&temporary).map_err(|error| unwritable(&temporary, &error))?;
    let written = files
        .iter()
        .try_for_each(|(path, text)| {
            let target = temporary.join(path);
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent).map_err(|error| unwritable(&folder.join(path), &error))?;
            }
            std::fs::write(&target, text).map_err(|error| unwritable(&folder.join(path), &error))
        })
        .and_then(|()| std::fs::rename(&temporary, folder).map_err(|error| unwritable(folder, &error)));
    if let Err(error) = written {
        let _what_is_left = std::fs::remove_dir_all(&temporary);
        return Err(error);
    }
    let module = format!("target/wasm32-unknown-unknown/release/{}.wasm", name.replace('-', "_"));
    Ok(NewCrate { folder: folder.to_owned(), module, files: files.len() })
}

/// Whether a crate of rules may have this name.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), NewError> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_BYTES_MAX {
        "it is too long"
    } else if !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        "it has other characters"
    } else if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        "it does not begin with a letter"
    } else if name.ends_with('-') || name.contains("--") {
        "a dash in it has nothing to join"
    } else if RESERVED.contains(&name) {
        "the name is taken: a word of Rust, a crate that rules link, or a name that some system keeps for itself"
    } else {
        return Ok(());
    };
    Err(NewError::Name { name: name.to_owned(), problem })
}

/// Every file of the new crate: path with `/`, and text.
fn files(name: &str) -> Result<Vec<(String, String)>, NewError> {
    let identifier = name.replace('-', "_");
    let title: String = name.split('-').map(title).collect();
    let mut files: Vec<(String, String)> = TEMPLATE
        .iter()
        .map(|(path, text)| {
            let text = text.replace("my-rules", name).replace("my_rules", &identifier).replace("MyRules", &title);
            ((*path).to_owned(), text)
        })
        .collect();
    files.push(("clippy.toml".into(), source("game-logic/drag-race/clippy.toml")?.into()));
    // The versions of the crates that this binary's own module was built with. Cargo strikes out what the new crate does not need.
    files.push(("Cargo.lock".into(), source("Cargo.lock")?.into()));
    let workspace: Table = parse("Cargo.toml")?;
    for (folder, package) in VENDORED {
        for (path, text) in SOURCES {
            let Some(path) = path.strip_prefix(folder).and_then(|path| path.strip_prefix('/')) else { continue };
            let text = match path {
                "Cargo.toml" => standalone_manifest(&parse(&format!("{folder}/Cargo.toml"))?, &workspace)?,
                "clippy.toml" => continue,
                _ => (*text).to_owned(),
            };
            files.push((format!("vendor/{package}/{path}"), text));
        }
        for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
            files.push((format!("vendor/{package}/{license}"), source(license)?.into()));
        }
    }
    Ok(files)
}

fn title(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

fn source(path: &str) -> Result<&'static str, NewError> {
    let found = SOURCES.iter().find(|(found, _)| *found == path);
    found.map(|(_, text)| *text).ok_or_else(|| NewError::Sources(format!("{path} is not among them")))
}

fn parse(path: &str) -> Result<Table, NewError> {
    source(path)?.parse().map_err(|error| NewError::Sources(format!("{path}: {error}")))
}

/// A package's manifest without its workspace: what it inherits is written out, its neighbours are found in `vendor/`, and what only its own tests
/// and its own module need is left out.
fn standalone_manifest(manifest: &Table, workspace: &Table) -> Result<String, NewError> {
    let inherited = |section: &str| workspace.get("workspace")?.as_table()?.get(section)?.as_table();
    let missing = |what: &str| NewError::Sources(format!("the workspace does not say {what}"));
    let mut manifest = manifest.clone();
    for section in ["dev-dependencies", "lints", "lib"] {
        manifest.remove(section);
    }
    if let Some(package) = manifest.get_mut("package").and_then(Value::as_table_mut) {
        for (key, value) in package.iter_mut().filter(|(_, value)| inherits(value)) {
            let found = inherited("package").and_then(|package| package.get(key)).ok_or_else(|| missing(key))?;
            *value = found.clone();
        }
    }
    for section in ["dependencies", "build-dependencies"] {
        let Some(dependencies) = manifest.get_mut(section).and_then(Value::as_table_mut) else { continue };
        for (name, value) in dependencies.iter_mut().filter(|(_, value)| inherits(value)) {
            let found = inherited("dependencies").and_then(|all| all.get(name)).ok_or_else(|| missing(name))?;
            let mut dependency = match found {
                Value::Table(table) => table.clone(),
                version => Table::from_iter([("version".to_owned(), version.clone())]),
            };
            if dependency.contains_key("path") {
                dependency.insert("path".into(), format!("../{name}").into());
            }
            add_own(&mut dependency, value);
            *value = Value::Table(dependency);
        }
    }
    toml::to_string(&manifest).map_err(|error| NewError::Sources(error.to_string()))
}

fn inherits(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}

/// What a package says beside `workspace = true`: features are added to those of the workspace.
fn add_own(dependency: &mut Table, own: &Value) {
    for (key, value) in own.as_table().into_iter().flatten().filter(|(key, _)| *key != "workspace") {
        match (dependency.get_mut(key).and_then(Value::as_array_mut), value.as_array()) {
            (Some(features), Some(more)) => features.extend(more.iter().cloned()),
            _ => {
                dependency.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_cargo_the_manifest_and_every_system_take() {
        for name in ["my-rules", "a", "x2", "a-b-c", "abcdefghijklmnopqrst"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for (name, part) in [
            ("", "empty"),
            ("abcdefghijklmnopqrstu", "long"),
            ("My", "characters"),
            ("my_rules", "characters"),
            ("../x", "characters"),
            ("größe", "characters"),
            ("2x", "letter"),
            ("-x", "letter"),
            ("x-", "dash"),
            ("x--y", "dash"),
            ("match", "taken"),
            ("drag-race", "taken"),
            ("con", "taken"),
        ] {
            let text = check_name(name).unwrap_err().to_string();
            assert!(text.contains(part) && text.contains("my-rules"), "{text}");
        }
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn a_crate_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/ice-race");
        let made = write("ice-race", &path).unwrap();
        assert_eq!(made.module, "target/wasm32-unknown-unknown/release/ice_race.wasm");
        let text = |file: &str| std::fs::read_to_string(path.join(file)).unwrap();
        assert!(text("Cargo.toml").contains("name = \"ice-race\""));
        assert!(
            text("src/lib.rs").contains("impl Rules for IceRace {") && text("src/lib.rs").contains("export!(IceRace);")
        );
        assert!(text("tests/rules.rs").contains("use ice_race::{IceRace"));
        assert!(text("vendor/drag-race/cars.toml").contains("mx5"));
        let names = |folder: &Path| -> Vec<String> {
            let mut names: Vec<_> =
                folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&path.join("vendor")), ["drag-race", "holeshot-abi", "holeshot-guest"]);
        assert_eq!(names(path.parent().unwrap()), ["ice-race"]);

        // Once more: refused, and nothing is changed or left beside it.
        std::fs::write(path.join("src/lib.rs"), "mine").unwrap();
        assert_eq!(write("ice-race", &path).unwrap_err(), NewError::Exists { folder: path.display().to_string() });
        assert_eq!(text("src/lib.rs"), "mine");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(write("ice-race", &file), Err(NewError::Exists { .. })));
        assert!(matches!(write("ice-race", &file.join("below")), Err(NewError::Unwritable { .. })));
        assert!(matches!(write("Ice", &folder.path().join("new")), Err(NewError::Name { .. })));
        assert_eq!(names(folder.path()), ["deep", "file"]);
    }

    #[test]
    fn vendored_manifests_stand_alone_and_nothing_names_the_template() {
        let files = files("ice-race").unwrap();
        for (path, text) in &files {
            assert!(
                path.starts_with("vendor/") || !text.to_lowercase().replace(['-', '_'], "").contains("myrules"),
                "{path}"
            );
            if path.starts_with("vendor/") && path.ends_with("Cargo.toml") {
                let manifest: Table = text.parse().unwrap();
                assert!(!text.contains("workspace") && !text.contains("dev-dependencies"), "{path}: {text}");
                for name in manifest["dependencies"].as_table().unwrap().keys() {
                    let path = manifest["dependencies"][name].get("path").and_then(Value::as_str);
                    let ours = VENDORED.iter().any(|(_, package)| package == name);
                    assert_eq!(path, ours.then(|| format!("../{name}")).as_deref());
                }
            }
        }
        let manifest: Table =
            files.iter().find(|(path, _)| path == "vendor/holeshot-guest/Cargo.toml").unwrap().1.parse().unwrap();
        let features: Vec<_> = manifest["dependencies"]["serde_json"]["features"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(features, ["alloc", "std"]);
        assert_eq!(manifest["dependencies"]["serde_json"]["default-features"].as_bool(), Some(false));
        assert_eq!(manifest["package"]["edition"].as_str(), Some("2024"));
    }
}
