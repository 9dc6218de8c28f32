//! Narrative: one well-formed XHTML `div` of the elements and attributes that R4 allows (`txt-1`). It is shown to
//! people in browsers and written as XML again, so nothing that acts (scripts, event handlers) may be in it.

/// `txt-1`, elements; in order, for a binary search.
const ELEMENTS: [&str; 48] = [
    "a",
    "abbr",
    "acronym",
    "b",
    "big",
    "blockquote",
    "br",
    "caption",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "dfn",
    "div",
    "dl",
    "dt",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "img",
    "li",
    "ol",
    "p",
    "pre",
    "q",
    "samp",
    "small",
    "span",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "tt",
    "ul",
    "var",
];

/// `txt-1`, attributes, and those of XML itself; in order.
const ATTRIBUTES: [&str; 54] = [
    "abbr",
    "accesskey",
    "align",
    "alt",
    "axis",
    "bgcolor",
    "border",
    "cellhalign",
    "cellpadding",
    "cellspacing",
    "cellvalign",
    "char",
    "charoff",
    "charset",
    "cite",
    "class",
    "colspan",
    "compact",
    "coords",
    "dir",
    "frame",
    "headers",
    "height",
    "href",
    "hreflang",
    "hspace",
    "id",
    "lang",
    "longdesc",
    "name",
    "nowrap",
    "rel",
    "rev",
    "rowspan",
    "rules",
    "scope",
    "shape",
    "span",
    "src",
    "start",
    "style",
    "summary",
    "tabindex",
    "title",
    "type",
    "valign",
    "value",
    "vspace",
    "width",
    "xml:base",
    "xml:id",
    "xml:lang",
    "xml:space",
    "xmlns",
];

/// Whether the text is a `div` element of XHTML and well-formed XML (no declarations, and of the entities with a name
/// only those of XML: narrative is part of an XML document that declares no others).
pub(super) fn check(text: &str) -> Result<(), &'static str> {
    let text = text.trim();
    let after = text.strip_prefix("<div").ok_or(ROOT)?;
    if !after.starts_with([' ', '\t', '\n', '\r', '>', '/']) || !after.split('>').next().is_some_and(is_xhtml) {
        return Err(ROOT);
    }
    well_formed(text)
}

const ROOT: &str = "A narrative must be one div element of the namespace http://www.w3.org/1999/xhtml.";
const CONTENT: &str = "The narrative has an element, attribute or link that R4 does not allow there (txt-1).";
const FORM: &str = "The narrative is not well-formed XHTML.";

fn is_xhtml(tag: &str) -> bool {
    tag.contains("\"http://www.w3.org/1999/xhtml\"") || tag.contains("'http://www.w3.org/1999/xhtml'")
}

/// Tags nest and close, attributes are quoted and distinct, `&` starts a reference, and nothing follows the root.
fn well_formed(text: &str) -> Result<(), &'static str> {
    let mut open: Vec<&str> = Vec::with_capacity(16);
    let mut rest = text;
    loop {
        let Some(at) = rest.find('<') else { return Err(FORM) };
        references(&rest[..at])?;
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            let (inside, after) = comment.split_once("-->").ok_or(FORM)?;
            if inside.contains("--") {
                return Err(FORM);
            }
            rest = after;
            continue;
        }
        if let Some(data) = rest.strip_prefix("<![CDATA[") {
            rest = data.split_once("]]>").ok_or(FORM)?.1;
            continue;
        }
        if let Some(tag) = rest.strip_prefix("</") {
            let (name, after) = tag.split_once('>').ok_or(FORM)?;
            if open.pop() != Some(name.trim_end()) {
                return Err(FORM);
            }
            rest = after;
        } else {
            let (name, closed, after) = start_tag(&rest[1..])?;
            if !closed {
                open.push(name);
            }
            rest = after;
        }
        if open.is_empty() {
            return if rest.is_empty() { Ok(()) } else { Err(ROOT) };
        }
    }
}

/// Name, whether it closes itself, and what follows.
fn start_tag(text: &str) -> Result<(&str, bool, &str), &'static str> {
    let (name, mut rest) = name(text)?;
    if ELEMENTS.binary_search(&name).is_err() {
        return Err(CONTENT);
    }
    let mut seen: Vec<&str> = Vec::new();
    loop {
        let trimmed = rest.trim_start_matches(SPACE);
        if let Some(after) = trimmed.strip_prefix("/>") {
            return Ok((name, true, after));
        }
        if let Some(after) = trimmed.strip_prefix('>') {
            return Ok((name, false, after));
        }
        if trimmed.len() == rest.len() {
            return Err(FORM);
        }
        let (attribute, after) = self::name(trimmed)?;
        let after = after.trim_start_matches(SPACE).strip_prefix('=').ok_or(FORM)?.trim_start_matches(SPACE);
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or(FORM)?;
        let (value, after) = after[1..].split_once(quote).ok_or(FORM)?;
        references(value)?;
        if value.contains('<') || seen.contains(&attribute) {
            return Err(FORM);
        }
        if ATTRIBUTES.binary_search(&attribute).is_err()
            || (matches!(attribute, "href" | "src") && acts(attribute, value))
        {
            return Err(CONTENT);
        }
        seen.push(attribute);
        rest = after;
    }
}

/// Whether a link would run something. References to characters can hide the scheme, so they count as its letters do.
fn acts(attribute: &str, link: &str) -> bool {
    let scheme = link.split_once(':').map_or("", |(scheme, _)| scheme);
    let plain: String = scheme.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    let scripts = match plain.to_ascii_lowercase().as_str() {
        "javascript" | "vbscript" => true,
        // An image may be inside the narrative, a page may not.
        "data" => attribute == "href",
        _ => false,
    };
    scripts || scheme.contains('&')
}

const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

fn name(text: &str) -> Result<(&str, &str), &'static str> {
    let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    let end = text.find(|c: char| !part(c)).unwrap_or(text.len());
    if end == 0 || text.starts_with(|c: char| c.is_numeric() || c == '-' || c == '.') {
        return Err(FORM);
    }
    Ok(text.split_at(end))
}

/// Every `&` starts a reference to a character or to an entity.
fn references(text: &str) -> Result<(), &'static str> {
    if text.bytes().any(|b| b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r')) {
        return Err(FORM);
    }
    for after in text.split('&').skip(1) {
        let (reference, _) = after.split_once(';').ok_or(FORM)?;
        let known = match reference.strip_prefix('#') {
            Some(number) => {
                let code = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => number.parse(),
                };
                code.is_ok_and(|code| code >= 9 && char::from_u32(code).is_some())
            }
            None => matches!(reference, "amp" | "lt" | "gt" | "quot" | "apos"),
        };
        if !known {
            return Err(FORM);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narratives_are_one_well_formed_div() {
        let div = |inner: &str| format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{inner}</div>");
        for good in [
            "",
            "text",
            "<p>a<br/>b</p>",
            "<b class='x' title=\"a > b\">x</b>",
            "a &amp; b &#160; &#xa0; &quot;",
            "<!-- <p> -->",
            "<img src=\"#a\" alt = 'x' />",
            "<div><div></div></div>",
            "a > b",
        ] {
            assert_eq!(check(&div(good)), Ok(()), "{good}");
        }
        for bad in [
            "<p>",
            "</p>",
            "<p></b>",
            "<b class=x>x</b>",
            "<b a=\"1\" a=\"2\"/>",
            "a & b",
            "&#0;",
            "<",
            "<b <i/>",
            "</div><div>",
            "<b a='<'/>",
            "<!-- -- -->",
            "<b a='x'b='y'/>",
            "\u{1}",
            "<1/>",
        ] {
            assert!(check(&div(bad)).is_err(), "{bad}");
        }
        assert_eq!(check("  <div xmlns='http://www.w3.org/1999/xhtml'/>\n"), Ok(()));
        for bad in [
            "text",
            "<div>x</div>",
            "<p xmlns=\"http://www.w3.org/1999/xhtml\"/>",
            "<divx xmlns='http://www.w3.org/1999/xhtml'/>",
        ] {
            assert_eq!(check(bad), Err(ROOT), "{bad}");
        }
    }

    #[test]
    fn narratives_do_nothing() {
        for bad in [
            "<script>alert(1)</script>",
            "<b onclick='x()'>x</b>",
            "<a href='javascript:x()'>x</a>",
            "<a href=' JavaScript:x()'>x</a>",
            "<a href='java&#115;cript:x()'>x</a>",
            "<a href='data:text/html,x'>x</a>",
            "<iframe src='x'/>",
            "<svg/>",
        ] {
            assert_eq!(check(&format!("<div xmlns='http://www.w3.org/1999/xhtml'>{bad}</div>")), Err(CONTENT), "{bad}");
        }
        let good = "<img src='data:image/png;base64,AAAA'/><a href='http://a?b=c&amp;d=e:f'>x</a><a href='#x'>x</a>";
        assert_eq!(check(&format!("<div xmlns='http://www.w3.org/1999/xhtml'>{good}</div>")), Ok(()));
    }
}
