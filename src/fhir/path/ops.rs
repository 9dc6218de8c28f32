//! The compiled form of an expression: names are looked up, functions are known, literals are values.

use std::sync::Arc;

use super::types::{Sym, Ty};
use super::value::Val;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Multiply,
    Divide,
    Div,
    Mod,
    Add,
    Subtract,
    Concatenate,
    Union,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    Equivalent,
    NotEquivalent,
    In,
    Contains,
    And,
    Or,
    Xor,
    Implies,
}

/// A step to the children of one name.
pub(super) struct Step {
    pub name: Box<str>,
    /// None: no element of R4 has this name.
    pub sym: Option<Sym>,
}

/// A type in `is`, `as`, `ofType`.
pub(super) struct TypeName {
    /// `System.`: no FHIR type is meant.
    pub system: bool,
    /// `FHIR.`: no System type is meant.
    pub fhir: bool,
    pub name: Box<str>,
    /// The FHIR type, if there is one of this name.
    pub ty: Option<Ty>,
}

pub(super) enum Op {
    This,
    Index,
    Total,
    Nothing,
    Literal(Val<'static>),
    Variable(Arc<str>),
    /// `Patient` where a path begins: what of the focus is of this type.
    Root(TypeName),
    /// Steps from the focus (`from` is None) or from what `from` gives.
    Path {
        from: Option<Box<Op>>,
        steps: Vec<Step>,
    },
    Item(Box<Op>, Box<Op>),
    Binary(Binary, Box<Op>, Box<Op>),
    Negate(Box<Op>),
    Plus(Box<Op>),
    Is(Box<Op>, TypeName),
    /// True: written as a function.
    As(Box<Op>, TypeName, bool),
    OfType(Box<Op>, TypeName),
    Call {
        on: Box<Op>,
        func: Func,
        args: Vec<Op>,
    },
}

/// Declares the functions: name in the language, variant, least and greatest number of arguments.
macro_rules! functions {
    ($($name:literal $variant:ident $least:literal $most:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Func { $($variant,)* }

        impl Func {
            /// The function of this name, with the least and greatest number of its arguments.
            pub fn named(name: &str) -> Option<(Func, usize, usize)> {
                match name {
                    $($name => Some((Func::$variant, $least, $most)),)*
                    _ => None,
                }
            }

            pub fn name(self) -> &'static str {
                match self { $(Func::$variant => $name,)* }
            }
        }
    };
}

functions! {
    "empty" Empty 0 0,
    "exists" Exists 0 1,
    "all" All 1 1,
    "allTrue" AllTrue 0 0,
    "anyTrue" AnyTrue 0 0,
    "allFalse" AllFalse 0 0,
    "anyFalse" AnyFalse 0 0,
    "subsetOf" SubsetOf 1 1,
    "supersetOf" SupersetOf 1 1,
    "count" Count 0 0,
    "distinct" Distinct 0 0,
    "isDistinct" IsDistinct 0 0,
    "where" Where 1 1,
    "select" Select 1 1,
    "repeat" Repeat 1 1,
    "repeatAll" RepeatAll 1 1,
    "single" Single 0 0,
    "first" First 0 0,
    "last" Last 0 0,
    "tail" Tail 0 0,
    "skip" Skip 1 1,
    "take" Take 1 1,
    "intersect" Intersect 1 1,
    "exclude" Exclude 1 1,
    "union" Union 1 1,
    "combine" Combine 1 2,
    "coalesce" Coalesce 1 32,
    "iif" Iif 2 3,
    "aggregate" Aggregate 1 2,
    "sort" Sort 0 16,
    "not" Not 0 0,
    "toBoolean" ToBoolean 0 0,
    "convertsToBoolean" ConvertsToBoolean 0 0,
    "toInteger" ToInteger 0 0,
    "convertsToInteger" ConvertsToInteger 0 0,
    "toLong" ToLong 0 0,
    "convertsToLong" ConvertsToLong 0 0,
    "toDecimal" ToDecimal 0 0,
    "convertsToDecimal" ConvertsToDecimal 0 0,
    "toDate" ToDate 0 0,
    "convertsToDate" ConvertsToDate 0 0,
    "toDateTime" ToDateTime 0 0,
    "convertsToDateTime" ConvertsToDateTime 0 0,
    "toTime" ToTime 0 0,
    "convertsToTime" ConvertsToTime 0 0,
    "toString" ToString 0 0,
    "convertsToString" ConvertsToString 0 0,
    "toQuantity" ToQuantity 0 1,
    "convertsToQuantity" ConvertsToQuantity 0 1,
    "indexOf" IndexOf 1 1,
    "lastIndexOf" LastIndexOf 1 1,
    "substring" Substring 1 2,
    "startsWith" StartsWith 1 1,
    "endsWith" EndsWith 1 1,
    "contains" Contains 1 1,
    "upper" Upper 0 0,
    "lower" Lower 0 0,
    "replace" Replace 2 2,
    "matches" Matches 1 2,
    "matchesFull" MatchesFull 1 2,
    "replaceMatches" ReplaceMatches 2 3,
    "length" Length 0 0,
    "toChars" ToChars 0 0,
    "encode" Encode 1 1,
    "decode" Decode 1 1,
    "escape" Escape 1 1,
    "unescape" Unescape 1 1,
    "trim" Trim 0 0,
    "split" Split 1 1,
    "join" Join 0 1,
    "abs" Abs 0 0,
    "ceiling" Ceiling 0 0,
    "floor" Floor 0 0,
    "truncate" Truncate 0 0,
    "round" Round 0 1,
    "exp" Exp 0 0,
    "ln" Ln 0 0,
    "log" Log 1 1,
    "power" Power 1 1,
    "sqrt" Sqrt 0 0,
    "lowBoundary" LowBoundary 0 1,
    "highBoundary" HighBoundary 0 1,
    "precision" Precision 0 0,
    "comparable" Comparable 1 1,
    "dateOf" DateOf 0 0,
    "timeOf" TimeOf 0 0,
    "children" Children 0 0,
    "descendants" Descendants 0 0,
    "trace" Trace 1 2,
    "now" Now 0 0,
    "today" Today 0 0,
    "timeOfDay" TimeOfDay 0 0,
    "type" Type 0 0,
    "extension" Extension 1 1,
    "hasExtension" HasExtension 1 1,
    "hasValue" HasValue 0 0,
    "getValue" GetValue 0 0,
    "resolve" Resolve 0 0,
    "conformsTo" ConformsTo 1 1,
    "defineVariable" DefineVariable 1 2,
}
