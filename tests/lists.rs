//! The lists of `conformance/smart/` name tests: each of them must be there, and no rule may be missing.

use std::fs;
use std::path::{Path, PathBuf};

/// Attacks that are tried at least.
const ATTACKS_MIN: usize = 60;
/// Rows of `unmet.md`. Only ever lower it.
const UNMET_MAX: usize = 2;

/// Every rule of the checklists that touches authorization: R general, S SMART App Launch, U granular scopes, O (g)(10).
const RULES: &[(&str, &[u32])] = &[
    ("R", &[1, 16, 17, 19]),
    (
        "S",
        &[
            1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 30, 31, 32, 33,
            34, 35, 40, 41, 42, 45, 46, 47, 48, 49, 50, 51, 55, 56, 57, 58, 60, 61, 62, 63, 64, 66, 67, 70, 71, 72, 73,
            74, 75, 80,
        ],
    ),
    ("U", &[30, 31, 32]),
    ("O", &[1, 2, 3, 4, 5, 6, 7, 9, 10]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The cells of a page's tables, without their heads.
fn rows(page: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("conformance/smart").join(page)).unwrap();
    let cells = |line: &str| {
        let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
        Some(inner.split(" | ").map(str::to_owned).collect::<Vec<_>>())
    };
    let rows = text.lines().filter_map(cells);
    rows.filter(|row| row[0] != "#" && row[0] != "rule").collect()
}

/// Whether there is such a test: `http::tests::smart::name` in the library, `tests::two_servers::name` outside of it.
/// Checks of the selftest are functions that it runs.
fn is_there(path: &str) -> bool {
    let Some((module, name)) = path.rsplit_once("::") else { return false };
    let (folder, module) = match module.strip_prefix("tests::") {
        Some(module) => ("tests", module),
        None => ("src", module),
    };
    let at = |module: &str| {
        let below = root().join(folder).join(module.replace("::", "/"));
        [below.with_extension("rs"), below.join("mod.rs")]
    };
    let inner = module.strip_suffix("::tests").map(at);
    let files = at(module).into_iter().chain(inner.into_iter().flatten());
    let is_check = module.starts_with("selftest");
    files.filter(|file| Path::exists(file)).any(|file| has_test(&fs::read_to_string(file).unwrap(), name, is_check))
}

fn has_test(text: &str, name: &str, is_check: bool) -> bool {
    let head = format!("fn {name}(");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    // Cases for both databases are listed in one place, and have no mark of their own.
    let both = text.split_once("on_both![").and_then(|(_, rest)| rest.split_once("];")).map_or("", |(names, _)| names);
    let listed = both.split(',').any(|own| own.trim() == name);
    lines.iter().enumerate().any(|(n, line)| {
        let found = line.trim_start_matches("async ").starts_with(&head);
        let marked = lines[n.saturating_sub(3)..n].iter().any(|line| matches!(*line, "#[test]" | "#[tokio::test]"));
        found && (is_check || marked || listed)
    })
}

/// The tests that a cell names, all of which are there.
fn tests_of(cell: &str) -> usize {
    let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
    let missing: Vec<&&str> = named.iter().filter(|test| !is_there(test)).collect();
    assert!(missing.is_empty(), "no such test: {missing:?}");
    named.len()
}

#[test]
fn every_attack_names_its_test() {
    let attacks = rows("attacks.md");
    assert!(attacks.len() >= ATTACKS_MIN, "{} attacks", attacks.len());
    for (n, row) in attacks.iter().enumerate() {
        assert_eq!(row.len(), 4, "{row:?}");
        assert_eq!(row[0], (n + 1).to_string(), "numbered in order");
        assert!(tests_of(&row[3]) >= 1, "{row:?}");
    }
}

#[test]
fn every_rule_is_shown_or_owned_up_to() {
    let (met, unmet) = (rows("rules.md"), rows("unmet.md"));
    assert!(unmet.len() <= UNMET_MAX, "the list may only shrink: {}", unmet.len());
    for row in &met {
        assert!(row.len() == 3 && tests_of(&row[2]) >= 1, "{row:?}");
    }
    assert!(unmet.iter().all(|row| row.len() == 3 && row[2].len() > 10), "with a reason");
    let all: Vec<String> =
        RULES.iter().flat_map(|(letter, numbers)| numbers.iter().map(move |n| format!("{letter}-{n}"))).collect();
    for rule in &all {
        let listed = met.iter().chain(&unmet).any(|row| row[0] == *rule);
        assert!(listed, "{rule} is neither in rules.md nor in unmet.md");
    }
    for row in met.iter().chain(&unmet) {
        assert!(all.contains(&row[0]), "{} is no rule", row[0]);
    }
    for (n, row) in met.iter().enumerate() {
        assert!(met[..n].iter().all(|other| other[0] != row[0]), "{} is there twice", row[0]);
    }
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    assert!(is_there("tests::lists::a_test_that_is_not_there_is_missed"));
    for wrong in ["tests::lists::rows", "tests::lists::gone", "oauth::tests::bench", "nowhere::tests::x", "x"] {
        assert!(!is_there(wrong), "{wrong}");
    }
}
