//! Tokens to the compiled form, by precedence climbing.

use super::lex::{Fault, Token, tokens};
use super::ops::{Binary, Func, Op, Step, TypeName};
use super::quantity::{Quantity, Unit};
use super::temporal::Period;
use super::types::{Sym, Ty, by_suffix};
use super::value::Val;
use crate::error::{Error, Result};

/// Longest expression, in bytes. The longest of R4's search parameters has 3,500.
const LONGEST: usize = 16 * 1024;
/// Deepest nesting: parentheses, arguments, and operators one inside the other.
const DEEPEST: u16 = 150;

/// An operation and how deep it is: evaluation recurses as deep.
struct Part {
    op: Op,
    depth: u16,
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    nested: u16,
}

type Parsed<T = Part> = std::result::Result<T, Fault>;

/// Parses and compiles a whole expression.
///
/// # Errors
/// `Kind::Invalid` with the column of the fault, counted in characters from 1.
pub(super) fn parse(text: &str) -> Result<Op> {
    if text.len() > LONGEST {
        return Err(Error::invalid("FHIRPath: the expression is longer than 16 KiB."));
    }
    let parsed = tokens(text).and_then(|tokens| {
        let mut parser = Parser { tokens, at: 0, nested: 0 };
        let part = parser.expression(0)?;
        match parser.peek() {
            Token::End => Ok(part.op),
            _ => parser.fault("an operator or the end of the expression is missing"),
        }
    });
    parsed.map_err(|fault| {
        let column = text.get(..fault.at).map_or(0, |before| before.chars().count()) + 1;
        Error::invalid(format!("FHIRPath, column {column}: {}.", fault.what))
    })
}

/// Binding power of a binary operator, weakest first.
fn operator(token: &Token) -> Option<(u8, Binary)> {
    Some(match token {
        Token::Name(word, false) => match word.as_str() {
            "implies" => (1, Binary::Implies),
            "or" => (2, Binary::Or),
            "xor" => (2, Binary::Xor),
            "and" => (3, Binary::And),
            "in" => (4, Binary::In),
            "contains" => (4, Binary::Contains),
            "div" => (10, Binary::Div),
            "mod" => (10, Binary::Mod),
            _ => return None,
        },
        Token::Mark(mark) => match *mark {
            "=" => (5, Binary::Equal),
            "!=" => (5, Binary::NotEqual),
            "~" => (5, Binary::Equivalent),
            "!~" => (5, Binary::NotEquivalent),
            "<" => (6, Binary::Less),
            "<=" => (6, Binary::LessOrEqual),
            ">" => (6, Binary::Greater),
            ">=" => (6, Binary::GreaterOrEqual),
            "|" => (7, Binary::Union),
            "+" => (9, Binary::Add),
            "-" => (9, Binary::Subtract),
            "&" => (9, Binary::Concatenate),
            "*" => (10, Binary::Multiply),
            "/" => (10, Binary::Divide),
            _ => return None,
        },
        _ => return None,
    })
}

const TYPE_OPERATOR: u8 = 8;
const POLARITY: u8 = 11;

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn eat(&mut self, mark: &str) -> bool {
        let found = matches!(self.peek(), Token::Mark(m) if *m == mark);
        if found {
            self.next();
        }
        found
    }

    fn fault<T>(&self, what: &'static str) -> Parsed<T> {
        Err(Fault { at: self.tokens[self.at].1, what })
    }

    fn deeper(&self, depth: u16) -> Parsed<u16> {
        if depth >= DEEPEST { self.fault("nested too deep") } else { Ok(depth + 1) }
    }

    fn expression(&mut self, least: u8) -> Parsed {
        if self.nested >= DEEPEST {
            return self.fault("nested too deep");
        }
        self.nested += 1;
        let part = self.climb(least);
        self.nested -= 1;
        part
    }

    fn climb(&mut self, least: u8) -> Parsed {
        let mut left = self.prefix()?;
        loop {
            if let Token::Name(word, false) = self.peek()
                && (word == "is" || word == "as")
                && TYPE_OPERATOR >= least
            {
                let is = word == "is";
                self.next();
                let name = self.type_name()?;
                let depth = self.deeper(left.depth)?;
                let on = Box::new(left.op);
                let op = if is { Op::Is(on, name) } else { Op::As(on, name, false) };
                left = Part { op, depth };
                continue;
            }
            match operator(self.peek()) {
                Some((power, binary)) if power >= least => {
                    self.next();
                    let right = self.expression(power + 1)?;
                    let depth = self.deeper(left.depth.max(right.depth))?;
                    left = Part { op: Op::Binary(binary, Box::new(left.op), Box::new(right.op)), depth };
                }
                _ => return Ok(left),
            }
        }
    }

    fn prefix(&mut self) -> Parsed {
        for (mark, negate) in [("-", true), ("+", false)] {
            if self.eat(mark) {
                let part = self.expression(POLARITY)?;
                let depth = self.deeper(part.depth)?;
                let on = Box::new(part.op);
                return Ok(Part { op: if negate { Op::Negate(on) } else { Op::Plus(on) }, depth });
            }
        }
        let mut part = self.term()?;
        loop {
            part = if self.eat(".") {
                self.invocation(Some(part))?
            } else if self.eat("[") {
                let index = self.expression(0)?;
                if !self.eat("]") {
                    return self.fault("`]` is missing");
                }
                let depth = self.deeper(part.depth.max(index.depth))?;
                Part { op: Op::Item(Box::new(part.op), Box::new(index.op)), depth }
            } else {
                return Ok(part);
            };
        }
    }

    fn term(&mut self) -> Parsed {
        let leaf = |op| Ok(Part { op, depth: 1 });
        match self.peek().clone() {
            Token::Mark("(") => {
                self.next();
                let part = self.expression(0)?;
                if self.eat(")") { Ok(part) } else { self.fault("`)` is missing") }
            }
            Token::Mark("{") => {
                self.next();
                if self.eat("}") { leaf(Op::Nothing) } else { self.fault("`}` is missing") }
            }
            Token::String(text) => {
                self.next();
                leaf(Op::Literal(Val::string(text)))
            }
            Token::Integer(n) => {
                self.next();
                let unit = self.unit();
                leaf(Op::Literal(match unit {
                    Some(unit) => Val::Quantity(Quantity { value: n.into(), unit }.into()),
                    None => Val::Integer(n),
                }))
            }
            Token::Decimal(value) => {
                self.next();
                let unit = self.unit();
                leaf(Op::Literal(match unit {
                    Some(unit) => Val::Quantity(Quantity { value, unit }.into()),
                    None => Val::Decimal(value),
                }))
            }
            Token::Temporal(value) => {
                self.next();
                leaf(Op::Literal(Val::temporal(value)))
            }
            Token::Variable(name) => {
                self.next();
                leaf(Op::Variable(name.into()))
            }
            Token::Dollar(name) => {
                let op = match name.as_str() {
                    "this" => Op::This,
                    "index" => Op::Index,
                    "total" => Op::Total,
                    _ => return self.fault("an unknown `$` name"),
                };
                self.next();
                leaf(op)
            }
            Token::Name(word, false) if matches!(word.as_str(), "true" | "false") && !self.is_call() => {
                self.next();
                leaf(Op::Literal(Val::Boolean(word == "true")))
            }
            Token::Name(..) => self.invocation(None),
            _ => self.fault("a term is missing"),
        }
    }

    /// Whether the name at hand is that of a function.
    fn is_call(&self) -> bool {
        matches!(self.tokens.get(self.at + 1), Some((Token::Mark("("), _)))
    }

    /// The unit right after a number.
    fn unit(&mut self) -> Option<Unit> {
        let unit = match self.peek() {
            Token::String(text) => Unit::quoted(text),
            Token::Name(word, false) => Unit::Calendar(Period::of_keyword(word)?, word.as_str().into()),
            _ => return None,
        };
        self.next();
        Some(unit)
    }

    /// A name or function, on what comes before the dot.
    fn invocation(&mut self, on: Option<Part>) -> Parsed {
        if let (Token::Dollar(_), Some(_)) = (self.peek(), &on) {
            return self.fault("`$` names stand at the beginning");
        }
        let call = self.is_call();
        let at = self.at;
        let Token::Name(name, quoted) = self.next() else {
            self.at = at;
            return self.fault("a name is missing");
        };
        if call && !quoted {
            return self.call(on, &name, at);
        }
        if on.is_none() && name.starts_with(|c: char| c.is_ascii_uppercase()) {
            return Ok(Part { op: Op::Root(type_named(None, &name)), depth: 1 });
        }
        let step = Step { sym: Sym::of(&name), name: name.into() };
        Ok(match on {
            Some(Part { op: Op::Path { from, mut steps }, depth }) => {
                steps.push(step);
                Part { op: Op::Path { from, steps }, depth }
            }
            Some(Part { op, depth }) => {
                let depth = self.deeper(depth)?;
                Part { op: Op::Path { from: Some(Box::new(op)), steps: vec![step] }, depth }
            }
            None => Part { op: Op::Path { from: None, steps: vec![step] }, depth: 1 },
        })
    }

    fn call(&mut self, on: Option<Part>, name: &str, at: usize) -> Parsed {
        self.next();
        let on = on.unwrap_or(Part { op: Op::This, depth: 1 });
        if matches!(name, "is" | "as" | "ofType") {
            let type_name = self.type_name()?;
            if !self.eat(")") {
                return self.fault("`)` is missing");
            }
            let depth = self.deeper(on.depth)?;
            let inner = Box::new(on.op);
            let op = match name {
                "is" => Op::Is(inner, type_name),
                "as" => Op::As(inner, type_name, true),
                _ => Op::OfType(inner, type_name),
            };
            return Ok(Part { op, depth });
        }
        let Some((func, least, most)) = Func::named(name) else {
            self.at = at;
            return self.fault("a function that is not known or not supported");
        };
        let mut depth = on.depth;
        let mut args = Vec::new();
        if !self.eat(")") {
            loop {
                let arg = self.argument(func)?;
                depth = depth.max(arg.depth);
                args.push(arg.op);
                if self.eat(")") {
                    break;
                }
                if !self.eat(",") {
                    return self.fault("`,` or `)` is missing");
                }
            }
        }
        if !(least..=most).contains(&args.len()) {
            self.at = at;
            return self.fault("a function with too few or too many arguments");
        }
        Ok(Part { op: Op::Call { on: Box::new(on.op), func, args }, depth: self.deeper(depth)? })
    }

    /// One argument; those of `sort` may end in a direction.
    fn argument(&mut self, func: Func) -> Parsed {
        let mut arg = self.expression(0)?;
        if func == Func::Sort
            && let Token::Name(word, false) = self.peek()
            && matches!(word.as_str(), "asc" | "desc")
        {
            if word == "desc" {
                arg = Part { op: Op::Negate(Box::new(arg.op)), depth: self.deeper(arg.depth)? };
            }
            self.next();
        }
        Ok(arg)
    }

    /// `Quantity`, `FHIR.Patient`, `System.String`.
    fn type_name(&mut self) -> Parsed<TypeName> {
        let at = self.at;
        let Token::Name(first, _) = self.next() else { return self.fault("the name of a type is missing") };
        let found = if self.eat(".") {
            match self.next() {
                Token::Name(second, _) => type_named(Some(&first), &second),
                _ => return self.fault("the name of a type is missing"),
            }
        } else {
            type_named(None, &first)
        };
        if found.ty.is_none() && !found.system && by_suffix(&found.name).is_none() && !is_system_only(&found.name) {
            self.at = at;
            return self.fault("a type that is not known");
        }
        Ok(found)
    }
}

/// System types that are no FHIR type with a small letter.
fn is_system_only(name: &str) -> bool {
    matches!(name, "Any" | "Long" | "TypeInfo")
}

fn type_named(namespace: Option<&str>, name: &str) -> TypeName {
    let system = namespace == Some("System");
    TypeName {
        system,
        fhir: namespace == Some("FHIR"),
        name: name.into(),
        ty: if system { None } else { Ty::named(name) },
    }
}
