//! What a command says: for people as lines and tables, or as JSON.

use phial::world::Instant;
use serde_json::{Value, json};

pub enum Said {
    /// That it was done, in words.
    Done(String),
    One(Value),
    Many(Vec<Value>),
}

/// A moment as it is printed.
pub fn time(ms: i64) -> Value {
    json!(Instant(ms).to_fhir())
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        // Some of it was said by apps that registered themselves: nothing of that steers the terminal.
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) if items[0].is_object() => items.iter().map(plain).collect::<Vec<_>>().join("; "),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Object(members) => {
            members.iter().map(|(name, value)| format!("{name}: {}", plain(value))).collect::<Vec<_>>().join(", ")
        }
        Value::Number(number) => number.to_string(),
    }
}

/// The rows under the names of their columns.
fn table(rows: &[Value]) -> String {
    let Some(first) = rows.first().and_then(Value::as_object) else { return "None.\n".to_owned() };
    let columns: Vec<&String> = first.keys().collect();
    let head: Vec<String> = columns.iter().map(|name| name.replace('_', " ").to_uppercase()).collect();
    let cells = rows.iter().map(|row| columns.iter().map(|name| plain(&row[name.as_str()])).collect());
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(cells).collect();
    let width = |n: usize| lines.iter().map(|line| line[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(padded.join("  ").trim_end());
        out.push('\n');
    }
    out
}

fn facts(one: &Value) -> String {
    let Some(object) = one.as_object() else { return format!("{}\n", plain(one)) };
    let width = object.keys().map(String::len).max().unwrap_or(0);
    let line = |(name, value): (&String, &Value)| {
        let name = name.replace('_', " ");
        match value.as_array().filter(|rows| rows.first().is_some_and(Value::is_object)) {
            Some(rows) => format!("{name}\n{}", table(rows)),
            None => format!("{name:width$}  {}\n", plain(value)),
        }
    };
    object.iter().map(line).collect()
}

impl Said {
    fn text(&self, as_json: bool) -> String {
        match (self, as_json) {
            (Said::Done(text), false) => format!("{text}\n"),
            (Said::Done(text), true) => format!("{:#}\n", json!({ "done": text })),
            (Said::One(one), false) => facts(one),
            (Said::One(one), true) => format!("{one:#}\n"),
            (Said::Many(rows), false) => table(rows),
            (Said::Many(rows), true) => format!("{:#}\n", Value::Array(rows.clone())),
        }
    }

    pub fn print(&self, as_json: bool) {
        print!("{}", self.text(as_json));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_under_their_columns_and_are_the_same_in_json() {
        let rows = vec![json!({"name": "ann", "last_seen": null}), json!({"name": "bartholomew", "last_seen": true})];
        let said = Said::Many(rows.clone());
        assert_eq!(said.text(false), "NAME         LAST SEEN\nann          -\nbartholomew  yes\n");
        assert_eq!(serde_json::from_str::<Value>(&said.text(true)).unwrap(), Value::Array(rows));
        assert_eq!(Said::Many(Vec::new()).text(false), "None.\n");
        let changes =
            json!([{"what": "name", "old": ["A"], "new": ["B\u{1b}[2J"]}, {"what": "kind", "old": [], "new": ["C"]}]);
        assert_eq!(
            Said::Many(vec![json!({ "changes": changes })]).text(false),
            "CHANGES\nwhat: name, old: A, new: B\u{fffd}[2J; what: kind, old: -, new: C\n"
        );
        assert_eq!(
            Said::One(json!({"id": "a", "client_secret": "s"})).text(false),
            "id             a\nclient secret  s\n"
        );
    }
}
