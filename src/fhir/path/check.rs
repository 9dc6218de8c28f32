//! Static check of an expression against the type it is written for: names that no type on the way has, a context that
//! cannot be, an order where there is none.

use super::eval::fault;
use super::ops::{Binary, Func, Op, Step};
use super::types::Ty;
use crate::error::Result;

/// What is known of a collection before there is one.
#[derive(Clone)]
struct Known {
    /// The FHIR types its items may have; None: anything.
    types: Option<Vec<Ty>>,
    /// Whether its order means something.
    ordered: bool,
}

impl Known {
    const ANYTHING: Known = Known { types: None, ordered: true };

    fn of(ty: Ty) -> Known {
        Known { types: Some(vec![ty]), ordered: true }
    }

    fn or(self, other: Known) -> Known {
        let types = match (self.types, other.types) {
            (Some(mut a), Some(b)) => {
                a.extend(b);
                Some(a)
            }
            _ => None,
        };
        Known { types, ordered: self.ordered && other.ordered }
    }
}

/// Checks against a root of this type.
pub(super) fn check(op: &Op, root: Ty) -> Result<()> {
    known(op, &Known::of(root)).map(|_| ())
}

fn known(op: &Op, this: &Known) -> Result<Known> {
    Ok(match op {
        Op::This => this.clone(),
        Op::Index | Op::Total | Op::Nothing | Op::Literal(_) | Op::Variable(_) => Known::ANYTHING,
        Op::Root(name) => match (name.ty, &this.types) {
            (Some(ty), Some(types)) => {
                if !types.iter().any(|known| known.is_a(ty) || ty.is_a(*known)) {
                    return Err(fault(&format!("the context is never a `{}`", name.name)));
                }
                Known::of(if ty.is_abstract() { types[0] } else { ty })
            }
            _ => Known::ANYTHING,
        },
        Op::Path { from, steps } => {
            let mut at = from.as_deref().map_or_else(|| Ok(this.clone()), |from| known(from, this))?;
            for step in steps {
                at = child(&at, step)?;
            }
            at
        }
        Op::Item(on, index) => {
            known(index, this)?;
            in_order(known(on, this)?)?
        }
        Op::Binary(op, a, b) => {
            let (a, b) = (known(a, this)?, known(b, this)?);
            if *op == Binary::Union { a.or(b) } else { Known::ANYTHING }
        }
        Op::Negate(on) | Op::Plus(on) | Op::Is(on, _) => {
            known(on, this)?;
            Known::ANYTHING
        }
        Op::As(on, name, _) | Op::OfType(on, name) => {
            known(on, this)?;
            name.ty.map_or(Known::ANYTHING, Known::of)
        }
        Op::Call { on, func, args } => call(known(on, this)?, *func, args, this)?,
    })
}

fn in_order(known: Known) -> Result<Known> {
    if known.ordered { Ok(known) } else { Err(fault("the order of these items means nothing")) }
}

fn child(at: &Known, step: &Step) -> Result<Known> {
    let Some(types) = &at.types else { return Ok(Known::ANYTHING) };
    let mut found = Vec::new();
    for ty in types {
        if *ty == Ty::UNKNOWN || ty.is_abstract() {
            return Ok(Known::ANYTHING);
        }
        let members = step.sym.and_then(|sym| ty.members(sym)).unwrap_or_default();
        found.extend(members.iter().map(|member| member.ty));
    }
    if found.is_empty() {
        let names: Vec<&str> = types.iter().filter_map(|ty| ty.name()).collect();
        return Err(fault(&format!("`{}` is no element of {}", step.name, names.join(", "))));
    }
    Ok(Known { types: Some(found), ordered: at.ordered })
}

fn call(input: Known, func: Func, args: &[Op], this: &Known) -> Result<Known> {
    match func {
        Func::Where | Func::All | Func::Exists | Func::Sort | Func::Trace | Func::Aggregate | Func::DefineVariable => {
            for arg in args {
                known(arg, &input)?;
            }
            Ok(match func {
                Func::All | Func::Exists | Func::Aggregate => Known::ANYTHING,
                Func::Sort => Known { ordered: true, ..input },
                _ => input,
            })
        }
        Func::Select => known(&args[0], &input),
        Func::Repeat | Func::RepeatAll => {
            known(&args[0], &input)?;
            Ok(Known { types: None, ordered: input.ordered })
        }
        Func::Iif => {
            known(&args[0], &input)?;
            let then = known(&args[1], &input)?;
            Ok(match args.get(2) {
                Some(other) => then.or(known(other, &input)?),
                None => then,
            })
        }
        _ => {
            let mut others = Vec::with_capacity(args.len());
            for arg in args {
                others.push(known(arg, this)?);
            }
            Ok(match func {
                Func::First | Func::Last | Func::Tail | Func::Skip | Func::Take => in_order(input)?,
                Func::Single | Func::Distinct | Func::Intersect | Func::Exclude | Func::GetValue => input,
                Func::Union | Func::Combine => others.into_iter().fold(input, Known::or),
                Func::Children | Func::Descendants => Known { types: None, ordered: false },
                Func::Extension => Ty::named("Extension").map_or(Known::ANYTHING, Known::of),
                _ => Known::ANYTHING,
            })
        }
    }
}
