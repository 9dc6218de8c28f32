//! Text to tokens, each with its column.

use rust_decimal::Decimal;

use super::temporal::Temporal;
use super::value::decimal;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name; true: it was delimited by backticks, so it is no keyword.
    Name(String, bool),
    /// `$this`, `$index`, `$total`.
    Dollar(String),
    /// `%name`.
    Variable(String),
    String(String),
    Integer(i64),
    Decimal(Decimal),
    Temporal(Temporal),
    /// Punctuation and operators.
    Mark(&'static str),
    End,
}

pub(super) struct Fault {
    /// Byte offset in the text.
    pub at: usize,
    pub what: &'static str,
}

const MARKS: [&str; 22] =
    ["<=", ">=", "!=", "!~", "(", ")", "[", "]", "{", "}", ".", ",", "|", "=", "~", "<", ">", "+", "-", "*", "/", "&"];

struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

/// All tokens with their offsets; the last one is `End`.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, usize)>, Fault> {
    let mut scan = Scanner { text, at: 0 };
    let mut out = Vec::new();
    loop {
        scan.skip_blank()?;
        let at = scan.at;
        let token = scan.token()?;
        let end = token == Token::End;
        out.push((token, at));
        if end {
            return Ok(out);
        }
    }
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

impl<'t> Scanner<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn fault<T>(&self, what: &'static str) -> Result<T, Fault> {
        Err(Fault { at: self.at, what })
    }

    fn take_while(&mut self, test: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c| !test(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip_blank(&mut self) -> Result<(), Fault> {
        loop {
            self.take_while(char::is_whitespace);
            let rest = self.rest();
            if rest.starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if rest.starts_with("/*") {
                match rest.find("*/") {
                    Some(end) => self.at += end + 2,
                    None => return self.fault("a comment that is not closed"),
                }
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<Token, Fault> {
        let Some(c) = self.peek() else { return Ok(Token::End) };
        match c {
            _ if is_name_start(c) => Ok(Token::Name(self.take_while(is_name).to_owned(), false)),
            '0'..='9' => self.number(),
            '\'' => Ok(Token::String(self.quoted('\'')?)),
            '`' => Ok(Token::Name(self.quoted('`')?, true)),
            '@' => self.temporal(),
            '$' => {
                self.at += 1;
                Ok(Token::Dollar(self.take_while(is_name).to_owned()))
            }
            '%' => {
                self.at += 1;
                let name = match self.peek() {
                    Some(quote @ ('`' | '\'')) => self.quoted(quote)?,
                    _ => self.take_while(|c| is_name(c) || c == '-').to_owned(),
                };
                if name.is_empty() { self.fault("a variable without a name") } else { Ok(Token::Variable(name)) }
            }
            _ => match MARKS.iter().find(|mark| self.rest().starts_with(**mark)) {
                Some(mark) => {
                    self.at += mark.len();
                    Ok(Token::Mark(mark))
                }
                None => self.fault("a character that has no meaning here"),
            },
        }
    }

    fn number(&mut self) -> Result<Token, Fault> {
        let start = self.at;
        self.take_while(|c| c.is_ascii_digit());
        let rest = self.rest();
        let fraction = rest.starts_with('.') && rest[1..].starts_with(|c: char| c.is_ascii_digit());
        if !fraction {
            let digits = &self.text[start..self.at];
            if rest.starts_with('L') {
                self.at += 1;
            }
            return match digits.parse() {
                Ok(n) => Ok(Token::Integer(n)),
                Err(_) => self.fault("a number too large"),
            };
        }
        self.at += 1;
        self.take_while(|c| c.is_ascii_digit());
        match decimal(&self.text[start..self.at]) {
            Some(d) => Ok(Token::Decimal(d)),
            None => self.fault("a number too large"),
        }
    }

    fn temporal(&mut self) -> Result<Token, Fault> {
        let start = self.at;
        self.at += 1;
        let time = self.peek() == Some('T');
        if time {
            self.at += 1;
        }
        let text_start = self.at;
        self.take_while(|c| c.is_ascii_digit() || matches!(c, '-' | ':'));
        if !time && self.peek() == Some('T') {
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit() || c == ':');
        }
        let rest = self.rest();
        if rest.starts_with('.') && rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
        }
        if !time && self.text[text_start..self.at].contains('T') {
            if self.peek() == Some('Z') {
                self.at += 1;
            } else if self.peek().is_some_and(|c| matches!(c, '+' | '-')) && self.rest().get(3..4) == Some(":") {
                self.at += 6.min(self.rest().len());
            }
        }
        let text = self.text.get(text_start..self.at).unwrap_or_default();
        let read = if time { Temporal::time(text) } else { Temporal::date_time(text) };
        read.map(Token::Temporal).ok_or(Fault { at: start, what: "a date or time that is none" })
    }

    fn quoted(&mut self, quote: char) -> Result<String, Fault> {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                _ if c == quote => return Ok(out),
                '\\' => self.escape(&mut out)?,
                _ => out.push(c),
            }
        }
        Err(Fault { at: start, what: "a quotation that is not closed" })
    }

    fn escape(&mut self, out: &mut String) -> Result<(), Fault> {
        let Some(c) = self.peek() else { return self.fault("an escape that is cut short") };
        self.at += c.len_utf8();
        out.push(match c {
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let code = self.rest().get(..4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
                let Some(made) = code.and_then(char::from_u32) else { return self.fault("an escape that is none") };
                self.at += 4;
                made
            }
            '\\' | '/' | '"' | '\'' | '`' => c,
            _ => return self.fault("an escape that is none"),
        });
        Ok(())
    }
}
