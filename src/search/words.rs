//! Words in the text of a resource, for `_text` (the narrative) and `_content` (all of it). Nothing of them is in a
//! capsule: the store looks into the bodies of few candidates.

use super::text;
use crate::fhir::json::Node;

/// Words, or phrases, all of which a text must hold; each begins where a word begins.
#[derive(Clone, PartialEq, Eq)]
pub struct Words {
    /// In the narrative alone.
    pub narrative: bool,
    /// Folded.
    pub parts: Vec<String>,
}

impl Words {
    /// Of a value as sent: words, or a phrase in quotation marks; None: there is no letter or digit in it.
    pub fn read(narrative: bool, value: &str) -> Option<Words> {
        let phrase = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let parts: Vec<String> = match phrase {
            Some(phrase) => vec![text::fold(phrase)],
            None => text::fold(value).split(' ').map(str::to_owned).collect(),
        };
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        (!parts.is_empty()).then_some(Words { narrative, parts })
    }

    pub fn hold(&self, resource: &Node) -> bool {
        let mut all = String::new();
        match self.narrative {
            true => {
                let div = resource.pointer("/text/div").and_then(Node::as_str);
                put(div.map(plain).map(Node::String).as_ref(), &mut all);
            }
            false => put(Some(resource), &mut all),
        }
        self.parts.iter().all(|part| all.contains(&format!(" {part}")))
    }
}

/// Appends every text below a node, folded, apart from each other so that no phrase spans two of them.
fn put(node: Option<&Node>, all: &mut String) {
    match node {
        Some(Node::String(text)) => {
            all.push(' ');
            all.push_str(&text::fold(text));
            all.push_str(" |");
        }
        Some(Node::Array(items)) => items.iter().for_each(|item| put(Some(item), all)),
        Some(Node::Object(members)) => {
            for (name, value) in members {
                match (name.as_str(), value) {
                    ("div", Node::String(markup)) => put(Some(&Node::String(plain(markup))), all),
                    // Coded bytes hold no words.
                    ("data", Node::String(_)) => {}
                    _ => put(Some(value), all),
                }
            }
        }
        _ => {}
    }
}

/// XHTML without its tags.
fn plain(markup: &str) -> String {
    let mut out = String::with_capacity(markup.len());
    let mut within = false;
    for letter in markup.chars() {
        match letter {
            '<' => within = true,
            '>' if within => {
                within = false;
                out.push(' ');
            }
            letter if !within => out.push(letter),
            _ => {}
        }
    }
    match quick_xml::escape::unescape(&out) {
        Ok(text) => text.into_owned(),
        Err(_) => out,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_and_phrases_begin_where_words_begin() {
        let resource = json!({"id": "x1", "text": {"div": "<div class='hidden'>Caf&#233; <b>au</b> lait</div>"},
            "note": [{"text": "Chronic kidney"}, {"text": "failure"}], "photo": [{"data": "secret"}]});
        for (narrative, value, holds) in [
            (true, "cafe", true),
            (true, "LAIT caf", true),
            (true, "\"au lait\"", true),
            (true, "afe", false),
            (true, "hidden", false),
            (true, "kidney", false),
            (false, "kidney lait", true),
            (false, "\"chronic kid\"", true),
            (false, "\"kidney failure\"", false),
            (false, "secret", false),
        ] {
            let words = Words::read(narrative, value).expect("words");
            assert_eq!(words.hold(&resource), holds, "{narrative} {value}");
        }
        assert!(Words::read(true, "--").is_none());
    }
}
