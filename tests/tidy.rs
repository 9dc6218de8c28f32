//! Keeps the house in order: reads the sources and checks what the compiler does not. The lists of exceptions may only
//! shrink: one that is no longer needed fails too.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Code lines a file may have, its unit tests not counted.
const CODE_LINES_MAX: usize = 500;
/// Lines that `docs/ARCHITECTURE.md` may have.
const ARCHITECTURE_LINES_MAX: usize = 150;

/// (rule, file): places that do not keep a rule yet. Only ever remove lines.
const EXCEPTIONS: &[(&str, &str)] = &[];

/// (what, words that show it, rooms that may). A word is matched in code, not in comments, strings or unit tests.
const ONLY_IN: &[(&str, &[&str], &[&str])] = &[
    ("sqlx", &["sqlx::"], &["store"]),
    ("HTTP server crates", &["axum::", "tower::", "tower_http::"], &["http"]),
    ("HTTP on the wire", &["hyper::", "hyper_util::", "rustls::", "tokio_rustls::"], &["http", "fetch"]),
    (
        "clock",
        &["SystemTime::now", "Instant::now", "Timestamp::now", "Zoned::now", "SystemTime::UNIX_EPOCH.elapsed"],
        &["world"],
    ),
    ("randomness", &["aws_lc_rs::rand", "rand::fill", "SystemRandom", "thread_rng", "getrandom"], &["world"]),
    (
        "the custody chain (receipts, sealed writes, audit rows)",
        &["Receipt", "SealedTx", "AuditRow"],
        &["store", "audit"],
    ),
    ("the audit log's own append", &["store.append("], &["audit"]),
    ("looking at content for the access decision", &[".consult("], &["interaction"]),
];

struct Source {
    /// Below the project's root, with forward slashes.
    path: String,
    /// `fhir` for `src/fhir/json.rs`; empty for `src/main.rs`, `src/lib.rs` and the command line.
    room: String,
    text: String,
    /// Without comments, literals and unit tests.
    code: String,
    /// A file that is there for unit tests alone.
    unit_tests: bool,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(below: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    if root().join(folder).is_dir() {
        files(&root().join(folder), &mut paths);
    }
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        let mut parts = path.split('/').skip(1);
        let first = parts.next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        let room = if ["main", "lib", "cli"].contains(&first.as_str()) { String::new() } else { first };
        Source { path, room, code: without_tests(&without_text(&text)), text, unit_tests: false }
    };
    let mut sources: Vec<Source> = paths.into_iter().map(read).collect();
    let of_tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let stem = source.path.trim_end_matches(".rs");
        if of_tests.iter().any(|module| stem == module || stem.starts_with(&format!("{module}/"))) {
            source.unit_tests = true;
            source.code.clear();
        }
    }
    sources
}

/// The modules that a file declares for its unit tests alone (`#[cfg(test)] mod contract;`), as paths without ending.
fn test_modules(source: &Source) -> Vec<String> {
    let own = source.path.trim_end_matches(".rs");
    let folder = match own.rsplit_once('/') {
        Some((folder, "mod" | "lib" | "main")) => folder,
        _ => own,
    };
    let text = without_text(&source.text);
    let declared = |part: &str| {
        let line = part.trim_start().split(';').next()?;
        let name = line.strip_prefix("pub(crate) ").unwrap_or(line).strip_prefix("mod ")?;
        name.chars().all(|c| c.is_alphanumeric() || c == '_').then(|| format!("{folder}/{name}"))
    };
    text.split("#[cfg(test)]").skip(1).filter_map(declared).collect()
}

/// Blanks out comments and literals, keeping line breaks.
fn without_text(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let starts = |at: usize, with: &str| with.chars().enumerate().all(|(n, c)| bytes.get(at + n) == Some(&c));
    while at < bytes.len() {
        let end = if starts(at, "//") {
            (at..bytes.len()).find(|n| bytes[*n] == '\n').unwrap_or(bytes.len())
        } else if starts(at, "/*") {
            (at + 2..bytes.len()).find(|n| starts(*n, "*/")).map_or(bytes.len(), |n| n + 2)
        } else if bytes[at] == 'r' && (starts(at, "r\"") || starts(at, "r#\"")) && !in_word(&bytes, at) {
            let close = if starts(at, "r#") { "\"#" } else { "\"" };
            (at + 3..bytes.len()).find(|n| starts(*n, close)).map_or(bytes.len(), |n| n + close.len())
        } else if bytes[at] == '"' {
            string_end(&bytes, at)
        } else if bytes[at] == '\'' && (bytes.get(at + 1) == Some(&'\\') || bytes.get(at + 2) == Some(&'\'')) {
            // A character literal; a lifetime has no closing quote so near.
            (at + 2..bytes.len())
                .find(|n| bytes[*n] == '\'' && (*n > at + 2 || bytes[at + 1] != '\\'))
                .map_or(bytes.len(), |n| n + 1)
        } else {
            out.push(bytes[at]);
            at += 1;
            continue;
        };
        out.extend(bytes[at..end].iter().filter(|c| **c == '\n'));
        out.push(' ');
        at = end;
    }
    out
}

fn in_word(bytes: &[char], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_alphanumeric() || bytes[at - 1] == '_')
}

fn string_end(bytes: &[char], at: usize) -> usize {
    let mut n = at + 1;
    while n < bytes.len() {
        match bytes[n] {
            '\\' => n += 2,
            '"' => return n + 1,
            _ => n += 1,
        }
    }
    bytes.len()
}

/// Cuts out every `#[cfg(test)]` item.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let open = rest.find('{').unwrap_or(rest.len());
        let semicolon = rest.find(';').unwrap_or(rest.len());
        let end = if semicolon < open {
            semicolon + 1
        } else {
            let mut depth = 0;
            let close = rest.char_indices().skip(open).find(|(_, c)| {
                depth += match c {
                    '{' => 1,
                    '}' => -1,
                    _ => 0,
                };
                *c == '}' && depth == 0
            });
            close.map_or(rest.len(), |(n, _)| n + 1)
        };
        rest = &rest[end..];
    }
    out + rest
}

/// The rooms in the order of `src/lib.rs`.
fn rooms() -> Vec<String> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let name = |line: &str| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned);
    lib.lines().filter_map(name).collect()
}

/// Every room that code names after `crate::`, `use crate::{a, b::c}` included.
fn imported(code: &str) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            out.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (n, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && c.is_alphabetic() => {
                    out.insert(word(&group[n..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    out
}

/// Fails unless exactly the excepted files break the rule.
fn judge(rule: &str, broken: Vec<(String, String)>) {
    let excepted = |path: &str| EXCEPTIONS.iter().any(|(of, file)| *of == rule && *file == path);
    let faults: Vec<String> =
        broken.iter().filter(|(path, _)| !excepted(path)).map(|(path, what)| format!("{path}: {what}")).collect();
    assert!(faults.is_empty(), "{rule}:\n{}", faults.join("\n"));
    for (_, file) in EXCEPTIONS.iter().filter(|(of, _)| *of == rule) {
        assert!(
            broken.iter().any(|(path, _)| path == file),
            "{file} keeps the rule now: remove the exception ({rule})"
        );
    }
}

#[test]
fn a_room_imports_only_from_rooms_below_it() {
    let rooms = rooms();
    let place = |name: &str| rooms.iter().position(|room| room == name);
    let mut broken = Vec::new();
    for source in sources("src").iter().filter(|source| !source.room.is_empty()) {
        let Some(own) = place(&source.room) else {
            broken.push((source.path.clone(), format!("the room {} is not in src/lib.rs", source.room)));
            continue;
        };
        for import in imported(&source.code) {
            if place(&import).is_some_and(|at| at > own) {
                broken.push((
                    source.path.clone(),
                    format!("{} stands above {} and may not be imported", import, source.room),
                ));
            }
        }
    }
    assert!(rooms.len() > 10, "src/lib.rs lists the rooms");
    let read = sources("src").iter().filter(|source| !source.code.trim().is_empty()).count();
    assert!(read > 60, "only {read} files have code: the reader sees too little");
    judge("import order", broken);
}

#[test]
fn what_belongs_to_one_room_stays_there() {
    for (what, words, allowed) in ONLY_IN {
        let mut broken = Vec::new();
        for source in sources("src").iter().filter(|source| !allowed.contains(&source.room.as_str())) {
            for word in *words {
                let found = source.code.match_indices(word).any(|(at, _)| {
                    let before = source.code[..at].chars().next_back();
                    before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
                });
                if found {
                    broken.push((source.path.clone(), format!("`{word}` belongs to {allowed:?}")));
                }
            }
        }
        judge(what, broken);
    }
}

#[test]
fn files_are_short_enough_to_be_read() {
    let mut broken = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")).chain(sources("benches")) {
        let lines = source.code.lines().filter(|line| !line.trim().is_empty()).count();
        if lines > CODE_LINES_MAX {
            broken.push((source.path, format!("{lines} code lines, at most {CODE_LINES_MAX}")));
        }
    }
    judge("file length", broken);
}

#[test]
fn every_file_says_what_it_is() {
    let unsaid = |source: &Source| !source.text.trim_start().starts_with("//!") && !source.unit_tests;
    let all = sources("src").into_iter().chain(sources("tests"));
    judge("module comment", all.filter(unsaid).map(|source| (source.path, "opens without //!".to_owned())).collect());
}

#[test]
fn nothing_is_left_to_be_written() {
    let unwritten = |source: &Source| ["todo!(", "unimplemented!("].iter().any(|word| source.code.contains(word));
    let broken = sources("src").into_iter().filter(unwritten);
    judge("unwritten", broken.map(|source| (source.path, "has a body that is not written".to_owned())).collect());
}

#[test]
fn the_architecture_page_names_every_room() {
    let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    assert!(page.lines().count() <= ARCHITECTURE_LINES_MAX, "docs/ARCHITECTURE.md is longer than it may be");
    let mut rooms = rooms();
    let mut there: Vec<String> =
        sources("src").into_iter().map(|source| source.room).filter(|room| !room.is_empty()).collect();
    there.dedup();
    for room in &there {
        assert!(rooms.contains(room), "src/{room} is not in src/lib.rs");
        assert!(page.contains(&format!("`{room}`")), "docs/ARCHITECTURE.md does not name `{room}`");
    }
    rooms.retain(|room| !there.contains(room));
    assert!(rooms.is_empty(), "in src/lib.rs but not there: {rooms:?}");
    let rows: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let order: Vec<&str> = rows.into_iter().filter(|row| there.iter().any(|room| room == row)).collect();
    assert_eq!(order, self::rooms(), "the table of docs/ARCHITECTURE.md has another order than src/lib.rs");
}

#[test]
fn both_databases_have_the_same_migrations() {
    let names = |engine: &str| -> BTreeSet<String> {
        let folder = root().join("migrations").join(engine);
        fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(names("sqlite"), names("postgres"));
    assert!(!names("sqlite").is_empty());
}

mod of_the_reader {
    use super::*;

    #[test]
    fn comments_literals_and_unit_tests_are_not_code() {
        let text = "use sqlx::x; // sqlx::y\nlet a = \"axum::\\\"z\"; let c = '\\''; let l: &'a str = r#\"q\"w\"#;\n#[cfg(test)]\nmod tests { fn f() { crate::http::x(); } }\nfn g() {}";
        let code = without_tests(&without_text(text));
        assert!(code.contains("use sqlx::x;") && !code.contains("sqlx::y") && !code.contains("axum"), "{code}");
        assert!(!code.contains("crate::http") && code.contains("fn g()") && code.contains("&'a str"), "{code}");
    }

    #[test]
    fn imports_are_seen_in_every_form() {
        let found = imported("use crate::{store::{Store, Tx}, fhir, vault::Pk}; let x = crate::audit::Trail::new();");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["audit", "fhir", "store", "vault"]);
    }
}
