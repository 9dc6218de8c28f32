//! Random system scopes, as text and as what they mean.

use serde_json::Value;

use super::population::{FILTERS, Filter, KINDS};
use crate::oracle::random::Random;

struct Rule {
    /// None: every type.
    kind: Option<&'static str>,
    letters: &'static str,
    filter: Option<&'static Filter>,
}

pub struct Scopes {
    rules: Vec<Rule>,
    pub text: String,
}

/// As written, and the letters it means.
type Permission = (&'static str, &'static str);

const PERMISSIONS: [Permission; 7] =
    [("rs", "rs"), ("rs", "rs"), ("read", "rs"), ("r", "r"), ("s", "s"), ("cruds", "cruds"), ("*", "cruds")];

impl Scopes {
    pub fn draw(random: &mut Random) -> Scopes {
        Scopes::drawn(random, &PERMISSIONS)
    }

    /// Those that may be read may be searched, and the other way.
    pub fn draw_alike(random: &mut Random) -> Scopes {
        Scopes::drawn(random, &[("rs", "rs"), ("read", "rs"), ("cruds", "cruds")])
    }

    fn drawn(random: &mut Random, permissions: &[Permission]) -> Scopes {
        let mut scopes = Scopes { rules: Vec::new(), text: String::new() };
        for kind in KINDS {
            // Of the types that carry most filters more often one, or several side by side.
            match random.below(10) {
                0 | 1 => {}
                2..=4 => scopes.add(random, permissions, Some(kind), None),
                n => {
                    for _ in 0..=usize::from(n > 7) {
                        let own: Vec<&Filter> = FILTERS.iter().filter(|filter| filter.kind == kind).collect();
                        let filter = *random.pick(&own);
                        scopes.add(random, permissions, Some(kind), Some(filter));
                    }
                }
            }
        }
        if random.chance(10) {
            scopes.add(random, permissions, None, None);
        }
        if scopes.rules.is_empty() {
            scopes.add(random, permissions, Some("Patient"), None);
        }
        scopes
    }

    fn add(
        &mut self,
        random: &mut Random,
        permissions: &[Permission],
        kind: Option<&'static str>,
        filter: Option<&'static Filter>,
    ) {
        let (written, letters) = *random.pick(permissions);
        let tail = filter.map_or(String::new(), |filter| format!("?{}", filter.text));
        self.text = format!("{} system/{}.{written}{tail}", self.text, kind.unwrap_or("*")).trim().to_owned();
        self.rules.push(Rule { kind, letters, filter });
    }

    fn rules_on<'a>(&'a self, kind: &'a str, letter: char) -> impl Iterator<Item = &'a Rule> {
        let on = move |rule: &&Rule| rule.kind.is_none_or(|only| only == kind) && rule.letters.contains(letter);
        self.rules.iter().filter(on)
    }

    /// Whether any scope has the permission on the type.
    pub fn grant(&self, kind: &str, letter: char) -> bool {
        self.rules_on(kind, letter).next().is_some()
    }

    /// Whether every row of the type is covered.
    pub fn every_row(&self, kind: &str, letter: char) -> bool {
        self.rules_on(kind, letter).any(|rule| rule.filter.is_none())
    }

    /// Whether the scopes let this content through.
    pub fn let_see(&self, resource: &Value, letter: char) -> bool {
        let kind = resource["resourceType"].as_str().expect("a type");
        self.rules_on(kind, letter).any(|rule| rule.filter.is_none_or(|filter| (filter.lets)(resource)))
    }

    /// The same types for searching, with all their rows.
    pub fn widened(&self) -> String {
        let all = self.rules.iter().filter(|rule| rule.letters.contains('s'));
        let mut words: Vec<String> = all.map(|rule| format!("system/{}.s", rule.kind.unwrap_or("*"))).collect();
        // A token needs a scope; this one opens nothing that is asked for.
        words.push("system/Basic.s".to_owned());
        words.dedup();
        words.join(" ")
    }
}
