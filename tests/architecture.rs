//! Who may import whom: reads the sources and fails on an import that the table does not allow.
//!
//! It deliberately judges nothing else of the code, and knows no exception: a module that needs one is in the wrong
//! place. What it cannot see is a path made by a macro of another crate.

use std::fs;
use std::path::{Path, PathBuf};

/// What every module may use: leaves without I/O.
const WORDS: &[&str] =
    &["error", "types", "csv", "time", "cancel", "offset", "provenance", "raw", "event", "wire"];
/// Pure functions over Arrow; they know words only, and not each other.
const MEANING: &[&str] = &["aggregate", "expr", "decode", "state", "detect"];
/// What to do, and how: an executor's ingest threads own their fetchers, and nothing else of `exec` meets I/O.
const WORK: &[&str] = &["plan", "exec"];
/// I/O: the sources, the sinks and the checkpoint never meet.
const EDGES: &[&str] = &["kafka", "ingest", "sink", "checkpoint"];

/// One row a module, bottom to top: its name, and what it may import besides itself.
const TABLE: &[(&str, &[&[&str]])] = &[
    ("error", &[]),
    ("types", &[&["error"]]),
    ("csv", &[&["error"]]),
    ("time", &[&["error"]]),
    ("cancel", &[&["time"]]),
    ("offset", &[&["error", "time"]]),
    ("provenance", &[&["offset"]]),
    ("raw", &[&["error", "time", "offset"]]),
    ("event", &[&["error", "time", "offset", "raw"]]),
    ("wire", &[&["error"]]),
    ("aggregate", &[WORDS]),
    ("expr", &[WORDS]),
    ("decode", &[WORDS]),
    ("state", &[WORDS]),
    ("detect", &[WORDS]),
    ("plan", &[WORDS, MEANING]),
    ("kafka", &[WORDS]),
    ("ingest", &[WORDS, &["kafka"]]),
    ("sink", &[WORDS, &["kafka"]]),
    ("checkpoint", &[WORDS]),
    ("exec", &[WORDS, MEANING, &["plan", "ingest"]]),
    ("driver", &[WORDS, WORK, &["ingest", "sink", "checkpoint"]]),
    ("context", &[WORDS, MEANING, WORK, EDGES, &["driver"]]),
    ("python", &[WORDS, MEANING, WORK, EDGES, &["driver", "context"]]),
];

/// A source file: its path below `src`, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The top-level module that the file belongs to; none for the root itself.
    fn module(&self) -> Option<&str> {
        let first = self.path.split('/').next().unwrap_or_default();
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (name != "lib").then_some(name)
    }

    /// Whether `super` names the crate's root here.
    fn is_below_root(&self) -> bool {
        let depth = self.path.matches('/').count();
        depth == 0 || (depth == 1 && self.path.ends_with("/mod.rs"))
    }
}

#[test]
fn every_import_is_one_that_the_table_allows() {
    let sources = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let found = violations(&sources);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn a_row_names_only_rows_above_it() {
    for (index, (module, allowed)) in TABLE.iter().enumerate() {
        let above: Vec<&str> = TABLE.iter().take(index).map(|(name, _)| *name).collect();
        for name in allowed.iter().copied().flatten() {
            assert!(above.contains(name), "the row {module} names {name}, which does not stand above it");
        }
    }
}

#[test]
fn the_imports_that_the_table_allows_pass() {
    assert_eq!(seeded("exec/mod.rs", "use crate::plan::Plan;\nuse crate::exec::fused::Fused;"), NOTHING);
    assert_eq!(
        seeded("plan/mod.rs", "/// Run by [`crate::exec::Engine`]: https://crate::exec\nfn f() {}"),
        NOTHING
    );
    assert_eq!(seeded("exec/fused.rs", "use super::Engine;\npub(crate) fn f() {}"), NOTHING);
    assert_eq!(
        seeded("error.rs", "mod tests { use super::*; }\nmacro_rules! m { () => { $crate::x::y() } }"),
        NOTHING
    );
}

#[test]
fn an_import_of_a_module_above_is_found() {
    assert_eq!(
        seeded("plan/mod.rs", "\nuse crate::exec::Engine;"),
        ["src/plan/mod.rs:4: plan may not import exec"]
    );
    assert_eq!(
        seeded("sink/kafka.rs", "use crate::ingest::Source;"),
        ["src/sink/kafka.rs:3: sink may not import ingest"]
    );
}

#[test]
fn a_path_in_the_middle_of_a_line_is_found() {
    let found = seeded("decode/json.rs", "fn f() -> Result<crate::plan::Plan, crate::error::Error> { g() }");
    assert_eq!(found, ["src/decode/json.rs:3: decode may not import plan"]);
}

#[test]
fn an_import_in_braces_from_the_root_is_found() {
    let found = seeded("exec/mod.rs", "use crate::{plan::Plan, time::Clock};");
    assert_eq!(
        found,
        ["src/exec/mod.rs:3: write one `use crate::module::…` a module, not braces from the root"]
    );
}

#[test]
fn an_import_through_the_root_is_found() {
    assert_eq!(
        seeded("exec/mod.rs", "use crate::Plan;"),
        ["src/exec/mod.rs:3: `crate::Plan` is no module: import by module path, not through the root"]
    );
    assert_eq!(
        seeded("exec/mod.rs", "use crate::*;"),
        ["src/exec/mod.rs:3: `crate::*` is no module: import by module path, not through the root"]
    );
    assert_eq!(
        seeded("lib.rs", "pub mod plan;\npub use plan::Plan;"),
        ["src/lib.rs:4: the root lists modules and exports nothing"]
    );
}

#[test]
fn a_way_up_by_super_is_found() {
    let way_up = "`super` reaches the root: write `crate::…`";
    assert_eq!(seeded("time.rs", "use super::exec::Engine;"), [format!("src/time.rs:3: {way_up}")]);
    assert_eq!(seeded("plan/mod.rs", "use super::exec::Engine;"), [format!("src/plan/mod.rs:3: {way_up}")]);
    assert_eq!(
        seeded("plan/check.rs", "use super::super::exec::Engine;"),
        [format!("src/plan/check.rs:3: {way_up}")]
    );
}

#[test]
fn a_module_without_a_row_is_found() {
    assert_eq!(seeded("gossip.rs", ""), ["src/gossip.rs: the module gossip has no row in the table"]);
}

#[test]
fn a_file_that_does_not_say_what_it_is_for_is_found() {
    let silent = "does not begin with a `//!` sentence that says what it is for";
    let file = |text: &str| violations(&[Source { path: "time.rs".into(), text: text.into() }]);
    assert_eq!(file("use std::fmt;\n"), [format!("src/time.rs: {silent}")]);
    assert_eq!(file("//! time\n\nuse std::fmt;\n"), [format!("src/time.rs: {silent}")]);
    assert_eq!(file("//! What time it is, and\n//! nothing else.\n//!\n//! More"), NOTHING);
}

#[test]
fn nothing_to_read_is_a_failure_and_not_a_pass() {
    assert_eq!(violations(&[]), ["there is no source file to read"]);
}

const NOTHING: [&str; 0] = [];

/// What is found in one file with a proper head: the text begins at line 3.
fn seeded(path: &str, text: &str) -> Vec<String> {
    violations(&[Source { path: path.into(), text: format!("//! A file of the test.\n\n{text}") }])
}

fn read(root: &Path) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(root, &mut paths);
    paths.sort();
    let relative = |path: &Path| path.strip_prefix(root).map(|p| p.to_string_lossy().replace('\\', "/"));
    paths
        .iter()
        .filter_map(|path| Some(Source { path: relative(path).ok()?, text: fs::read_to_string(path).ok()? }))
        .collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn violations(sources: &[Source]) -> Vec<String> {
    if sources.is_empty() {
        return vec!["there is no source file to read".into()];
    }
    sources.iter().flat_map(violations_of).collect()
}

fn violations_of(source: &Source) -> Vec<String> {
    let path = &source.path;
    let mut found = Vec::new();
    if !begins_with_a_sentence(&source.text) {
        found.push(format!("src/{path}: does not begin with a `//!` sentence that says what it is for"));
    }
    let Some(module) = source.module() else {
        found.extend(
            numbered(source).filter(|(_, line)| is_use(line)).map(|(number, _)| {
                format!("src/{path}:{number}: the root lists modules and exports nothing")
            }),
        );
        return found;
    };
    let Some(allowed) = allowed(module) else {
        found.push(format!("src/{path}: the module {module} has no row in the table"));
        return found;
    };
    for (number, line) in numbered(source) {
        let wrong = wrong_imports(line, module, &allowed).chain(wrong_super(line, source.is_below_root()));
        found.extend(wrong.map(|what| format!("src/{path}:{number}: {what}")));
    }
    found
}

/// The first paragraph ends as a sentence does.
fn begins_with_a_sentence(text: &str) -> bool {
    let paragraph = text.lines().map_while(|line| line.strip_prefix("//! "));
    paragraph.last().is_some_and(|line| line.trim_end().ends_with(['.', ':', '!', '?']))
}

fn numbered(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source.text.lines().enumerate().map(|(index, line)| (index + 1, code(line)))
}

/// The line without its comment; a `//` behind a colon belongs to an address in a text.
fn code(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

fn is_use(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("use ") || line.starts_with("pub use ") || line.starts_with("pub(crate) use ")
}

fn allowed(module: &str) -> Option<Vec<&'static str>> {
    let (name, row) = TABLE.iter().find(|(name, _)| *name == module)?;
    Some(row.iter().copied().flatten().copied().chain([*name]).collect())
}

fn wrong_imports<'a>(
    line: &'a str,
    module: &'a str,
    allowed: &'a [&str],
) -> impl Iterator<Item = String> + 'a {
    paths_after(line, "crate::").filter_map(move |rest| {
        let name = head(rest);
        if rest.starts_with('{') {
            Some("write one `use crate::module::…` a module, not braces from the root".into())
        } else if !TABLE.iter().any(|(row, _)| *row == name) {
            Some(format!("`crate::{name}` is no module: import by module path, not through the root"))
        } else {
            (!allowed.contains(&name)).then(|| format!("{module} may not import {name}"))
        }
    })
}

fn wrong_super(line: &str, below_root: bool) -> impl Iterator<Item = String> {
    paths_after(line, "super::").filter_map(move |rest| {
        let names_module = TABLE.iter().any(|(row, _)| *row == head(rest));
        let reaches_root = rest.starts_with("super::") || (below_root && names_module);
        reaches_root.then(|| "`super` reaches the root: write `crate::…`".into())
    })
}

/// What follows each path that begins with the marker: `$crate::` and the rest of a longer path are not beginnings.
fn paths_after<'a>(line: &'a str, marker: &'static str) -> impl Iterator<Item = &'a str> {
    let begins =
        |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | ':'));
    line.match_indices(marker)
        .filter(move |(at, _)| begins(*at))
        .map(move |(at, _)| &line[at + marker.len()..])
}

/// The first name of a path, or the sign that stands where a name should.
fn head(path: &str) -> &str {
    let name = path.find(|c: char| !c.is_alphanumeric() && c != '_').map_or(path, |end| &path[..end]);
    if name.is_empty() { path.get(..1).unwrap_or(path) } else { name }
}
