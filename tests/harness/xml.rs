//! Just enough XML to compare two documents: a list of what is in them, spelling differences aside. Not the reader of
//! the server, so that both do not err alike.

/// One start tag, end tag or piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// Name and attributes, sorted.
    Open(String, Vec<(String, String)>),
    Close(String),
    Text(String),
}

/// The tokens of a document: no comments, instructions or white space between elements (but all of it in narrative);
/// `<a/>` is `<a></a>`; entities are resolved.
pub fn tokens(document: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut rest = document.trim_start_matches('\u{feff}');
    let mut narrative = 0;
    while !rest.is_empty() {
        let Some(at) = rest.find('<') else { break };
        let text = &rest[..at];
        if narrative > 0 && !text.is_empty() {
            push_text(&mut out, &resolve(text));
        }
        rest = &rest[at..];
        if let Some(inner) = rest.strip_prefix("<!--") {
            rest = inner.split_once("-->").map_or("", |(_, rest)| rest);
        } else if let Some(inner) = rest.strip_prefix("<![CDATA[") {
            let (text, after) = inner.split_once("]]>").unwrap_or((inner, ""));
            push_text(&mut out, text);
            rest = after;
        } else if rest.starts_with("<?") || rest.starts_with("<!") {
            rest = rest.split_once('>').map_or("", |(_, rest)| rest);
        } else {
            let end = tag_end(rest);
            let tag = &rest[1..end];
            rest = &rest[end + 1..];
            push_tag(&mut out, tag, &mut narrative);
        }
    }
    out
}

fn push_tag(out: &mut Vec<Token>, tag: &str, narrative: &mut i32) {
    if let Some(name) = tag.strip_prefix('/') {
        *narrative -= i32::from(*narrative > 0);
        out.push(Token::Close(local(name.trim())));
        return;
    }
    let empty = tag.ends_with('/');
    let tag = tag.trim_end_matches('/');
    let (name, attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
    let name = local(name);
    out.push(Token::Open(name.clone(), self::attributes(attributes)));
    match empty {
        true => out.push(Token::Close(name)),
        // White space counts within the narrative's div, at any depth.
        false => *narrative += i32::from(*narrative > 0 || name == "div"),
    }
}

fn push_text(out: &mut Vec<Token>, text: &str) {
    match out.last_mut() {
        Some(Token::Text(before)) => before.push_str(text),
        _ => out.push(Token::Text(text.to_owned())),
    }
}

fn local(name: &str) -> String {
    name.rsplit(':').next().unwrap_or(name).to_owned()
}

/// Where the tag ends: a `>` that is not in a quoted value.
fn tag_end(text: &str) -> usize {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, '>') => return at,
            _ => {}
        }
    }
    text.len() - 1
}

fn attributes(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let Some(quote) = after.chars().next() else { break };
        let (value, then) = after[1..].split_once(quote).unwrap_or((&after[1..], ""));
        // Line breaks in a value mean spaces to every XML reader; which prefix names a namespace does not matter.
        let value: String = value.chars().map(|c| if matches!(c, '\n' | '\t' | '\r') { ' ' } else { c }).collect();
        if !name.trim().starts_with("xmlns") && !name.contains("schemaLocation") {
            out.push((name.trim().to_owned(), resolve(&value)));
        }
        rest = then.trim_start();
    }
    out.sort();
    out
}

fn resolve(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let (entity, after) = rest[at + 1..].split_once(';').unwrap_or((&rest[at + 1..], ""));
        let number = entity.strip_prefix('#').and_then(|digits| match digits.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => digits.parse().ok(),
        });
        match (entity, number.and_then(char::from_u32)) {
            (_, Some(c)) => out.push(c),
            ("lt", _) => out.push('<'),
            ("gt", _) => out.push('>'),
            ("amp", _) => out.push('&'),
            ("quot", _) => out.push('"'),
            ("apos", _) => out.push('\''),
            (other, _) => out.push_str(&format!("&{other};")),
        }
        rest = after;
    }
    (out + rest).replace("\r\n", "\n")
}

/// The tokens without `meta.versionId` and `meta.lastUpdated` (and a meta that holds nothing else), as the server
/// gives them.
pub fn without_version(tokens: Vec<Token>) -> Vec<Token> {
    let mut out: Vec<Token> = Vec::new();
    let mut depth = 0;
    let mut skip = false;
    for token in tokens {
        match &token {
            Token::Open(name, _) => {
                depth += 1;
                skip = depth == 3 && in_meta(&out) && (name == "versionId" || name == "lastUpdated");
            }
            Token::Close(name) => {
                depth -= 1;
                if skip {
                    skip = false;
                    continue;
                }
                if depth == 1
                    && name == "meta"
                    && matches!(out.last(), Some(Token::Open(open, list)) if open == "meta" && list.is_empty())
                {
                    out.pop();
                    continue;
                }
            }
            Token::Text(_) => {}
        }
        if !skip {
            out.push(token);
        }
    }
    out
}

/// Whether the innermost element still open on level 2 is `meta`.
fn in_meta(out: &[Token]) -> bool {
    let mut depth = 0;
    for token in out.iter().rev() {
        match token {
            Token::Close(_) => depth += 1,
            Token::Open(name, _) if depth == 0 => return name == "meta",
            Token::Open(..) => depth -= 1,
            Token::Text(_) => {}
        }
    }
    false
}
