//! Reads the tokens of every file under `src/` and fails on a breach of the rules that the code
//! is built by: who may import whom (the table in `src/lib.rs`), where `unsafe` may stand, what a type
//! that holds a secret may derive (I6), and how large a file may grow.
//!
//! Tokens, not a syntax tree: a path inside a macro counts like any other. To let a module import a
//! sibling, add the edge to `UNITS`; a reviewer then sees the new dependency as one changed line.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[path = "architecture/breaches.rs"]
mod breaches;
#[path = "architecture/scan.rs"]
mod scan;
#[path = "architecture/tokens.rs"]
mod tokens;

use scan::{judge, wipes};

/// A module, or a submodule that is imported on its own, and what it may import.
struct Unit {
    name: &'static str,
    layer: u8,
    may: May,
}

enum May {
    /// Every lower layer, and these of its own. Never `pb` unless named.
    Below(&'static [&'static str]),
    /// These alone.
    Only(&'static [&'static str]),
}

use May::{Below, Only};

const fn unit(name: &'static str, layer: u8, may: May) -> Unit {
    Unit { name, layer, may }
}

/// The layer table of `src/lib.rs`, with every edge inside a layer.
const UNITS: &[Unit] = &[
    unit("secret", 0, Only(&[])),
    unit("types", 0, Only(&[])),
    unit("clock", 0, Only(&["sys"])),
    unit("sys", 0, Only(&[])),
    unit("config", 0, Only(&["types"])),
    unit("telemetry", 0, Only(&["metrics"])),
    unit("metrics", 0, Only(&[])),
    unit("pb", 0, Only(&[])),
    unit("link", 0, Only(&["sys"])),
    //
    unit("peer", 1, Below(&[])),
    unit("upstream", 1, Below(&[])),
    unit("vault", 1, Below(&["upstream"])),
    // What TLS trusts.
    unit("otlp", 1, Below(&["upstream"])),
    //
    unit("session", 2, Below(&["policy", "audit"])),
    // The proof that a marked scope asks for.
    unit("policy", 2, Below(&["approval"])),
    unit("approval", 2, Below(&[])),
    unit("limit", 2, Below(&["policy"])),
    unit("lease", 2, Below(&["policy", "session", "approval"])),
    unit("inbox", 2, Below(&[])),
    unit("audit", 2, Below(&["approval"])),
    unit("inbox", 2, Below(&["policy", "audit", "approval"])),
    //
    unit("broker", 3, Below(&[])),
    //
    unit("grpc", 4, Below(&["pb"])),
    unit("daemon", 4, Below(&["grpc"])),
    unit("client", 4, Only(&["pb", "secret", "types", "config", "link", "sys"])),
    // `config check` judges dispatches as the daemon does.
    unit(
        "cli",
        4,
        Only(&["client", "secret", "clock", "types", "config", "audit", "policy", "inbox", "sys"]),
    ),
    unit("mcp", 4, Only(&["client", "secret", "types"])),
    unit("sandbox", 4, Only(&["secret", "clock"])),
    //
    unit("demo", 5, Below(&[])),
    unit("program", 5, Below(&["demo"])),
    unit("bin/ravi-broker", 5, Only(&["program"])),
    unit("bin/ravi-brokerd", 5, Only(&["program"])),
    unit("bin/ravi-broker-mcp", 5, Only(&["program"])),
    unit("bin/ravi-sandbox", 5, Only(&["program"])),
];

/// Never reached through "every lower layer".
const BY_NAME_ALONE: &str = "pb";

/// Crates that belong to one place.
const CRATES: &[(&str, &[&str])] = &[
    // Callbacks and a collector are called as well; what TLS trusts comes from `upstream`.
    ("hyper_rustls", &["upstream", "inbox", "otlp"]),
    ("webpki_roots", &["upstream"]),
    ("tonic", &["pb", "grpc", "client", "daemon", "otlp"]),
    ("prost", &["pb", "grpc", "client", "otlp"]),
    ("rmcp", &["mcp"]),
    ("rusqlite", &["inbox"]),
    ("ratatui", &["cli"]),
    ("axum", &["sandbox"]),
    ("rcgen", &["sandbox"]),
];

const UNSAFE_PLACES: [&str; 2] = ["src/sys/", "src/vault/arena.rs"];

/// A field of one of these makes its type a holder of a secret.
const SECRET_TYPES: [&str; 5] = ["Secret", "SecretBox", "SecretString", "SecretSlice", "Zeroizing"];

/// What shows, copies or compares (not in constant time) a secret.
const DENIED_DERIVES: [&str; 10] =
    ["Debug", "Display", "Serialize", "Clone", "Copy", "PartialEq", "Eq", "PartialOrd", "Ord", "Hash"];

/// Of these, what may not even be written by hand. A redacted `Debug` may, where a trait forces one.
const DENIED_IMPLS: [&str; 4] = ["Display", "Serialize", "Clone", "Copy"];

/// What each program has to say, or the blocks that it frees keep what was in them (I1). After a `;`: no
/// attribute before it that would take it away again.
const ALLOCATOR: &str = "; #[global_allocator] static ALLOCATOR: WipingAllocator = WIPING;";

/// Lines of a file without its tests.
const LONG_FILE: usize = 400;
const TOO_LONG_FILE: usize = 500;

#[test]
fn the_source_keeps_the_rules() {
    let sources = sources();
    let report = judge(&sources);
    assert!(
        sources.len() > 20,
        "only {} files found: does the test still look in the right place?",
        sources.len()
    );
    assert!(report.edges.contains(&edge("clock", "sys")), "the import of `sys` by `clock` was not seen");
    for warning in &report.warnings {
        println!("warning: {warning}");
    }
    assert!(report.breaches.is_empty(), "\n\n{}\n", report.breaches.join("\n"));
}

#[test]
fn every_module_of_the_library_has_a_place_in_the_table() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let modules = declared_modules(&lib);
    assert!(modules.contains(&"secret".to_owned()), "the modules of lib.rs were not found");
    for module in &modules {
        let unit = UNITS.iter().find(|unit| unit.name == module);
        let unit = unit.unwrap_or_else(|| panic!("`{module}` has no place in `UNITS`"));
        assert!(
            module == "sandbox" || documented_layer(&lib, module) == Some(unit.layer),
            "the table in src/lib.rs does not place `{module}` in layer {}",
            unit.layer
        );
    }
}

#[test]
fn the_table_points_downwards() {
    for from in UNITS {
        let (Below(names) | Only(names)) = from.may;
        for name in names {
            let to =
                UNITS.iter().find(|unit| unit.name == *name).unwrap_or_else(|| panic!("no unit `{name}`"));
            assert!(to.layer <= from.layer, "`{}` is let up to `{name}`", from.name);
        }
    }
}

#[test]
fn every_program_wipes_what_it_frees() {
    let programs: Vec<Source> = sources().into_iter().filter(|s| s.path.starts_with("src/bin/")).collect();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert_eq!(programs.len(), manifest.matches("[[bin]]").count(), "a program lies elsewhere");
    for Source { path, text } in programs {
        assert!(manifest.contains(&format!("path = \"{path}\"")), "{path} is no program");
        assert!(wipes(&text), "{path} does not set the allocator that wipes: see src/program/allocator.rs");
    }
}

/// A file of the crate. `path` counts from the repository's root.
struct Source {
    path: String,
    text: String,
}

#[derive(Default)]
struct Report {
    breaches: Vec<String>,
    warnings: Vec<String>,
    edges: BTreeSet<String>,
}

fn edge(from: &str, to: &str) -> String {
    format!("{from} -> {to}")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push(Source { path: name, text: fs::read_to_string(path).unwrap() });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn declared_modules(lib: &str) -> Vec<String> {
    lib.lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect()
}

/// The number before the line of the table that names `module`.
fn documented_layer(lib: &str, module: &str) -> Option<u8> {
    lib.lines().filter_map(|line| line.strip_prefix("//! ")).find_map(|line| {
        let (number, names) = line.split_once("  ")?;
        let layer = number.parse().ok()?;
        names.split([' ', ',']).any(|name| name == module).then_some(layer)
    })
}
