//! Function calls: those over collections and with expressions as arguments are here; strings, numbers, conversions and
//! the tree have modules of their own.

use std::cmp::Ordering;

use super::compare::{equal, order};
use super::eval::{Machine, Scope, boolean, condition, fault, single};
use super::ops::{Func, Op};
use super::value::{Items, Val};
use crate::error::Result;

impl<'a> Machine<'a, '_> {
    pub fn call(&self, on: &Op, func: Func, args: &[Op], scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        let input = self.eval(on, scope)?;
        self.spend(input.len())?;
        match func {
            Func::Empty => Ok(boolean(Some(input.is_empty()))),
            Func::Exists => self.exists(&input, args.first(), scope),
            Func::Where => self.filter(input, &args[0], scope),
            Func::Select => self.select(&input, &args[0], scope),
            Func::All => self.all(&input, &args[0], scope),
            Func::AllTrue | Func::AnyTrue | Func::AllFalse | Func::AnyFalse => booleans(func, &input),
            Func::Repeat => self.repeat(input, &args[0], scope, true),
            Func::RepeatAll => self.repeat(input, &args[0], scope, false),
            Func::Iif => self.iif(&input, args, scope),
            Func::Aggregate => self.aggregate(&input, args, scope),
            Func::Sort => self.sort(input, args, scope),
            Func::Coalesce => {
                for arg in args {
                    let found = self.within(|| self.eval(arg, scope))?;
                    if !found.is_empty() {
                        return Ok(found);
                    }
                }
                Ok(Items::new())
            }
            Func::Trace => {
                // The name and the projection are evaluated, and then nothing is written: a log holds no PHI.
                self.select(&input, args.get(1).unwrap_or(&args[0]), scope)?;
                Ok(input)
            }
            Func::DefineVariable => self.define(input, args, scope),
            Func::Count => Ok(vec![Val::Integer(input.len() as i64)]),
            Func::Distinct => self.distinct(Items::new(), input),
            Func::IsDistinct => {
                let count = input.len();
                Ok(boolean(Some(self.distinct(Items::new(), input)?.len() == count)))
            }
            Func::Single => Ok(single(&input)?.cloned().into_iter().collect()),
            Func::First => Ok(input.into_iter().take(1).collect()),
            Func::Last => Ok(input.into_iter().next_back().into_iter().collect()),
            Func::Tail => Ok(input.into_iter().skip(1).collect()),
            Func::Skip | Func::Take => {
                let count = self.integer(&args[0], scope)?.ok_or_else(|| fault("a number is expected"))?;
                let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
                let items = input.into_iter();
                Ok(if func == Func::Skip { items.skip(count).collect() } else { items.take(count).collect() })
            }
            Func::SubsetOf => Ok(boolean(Some(self.covers(&self.value(&args[0], scope)?, &input)?))),
            Func::SupersetOf => Ok(boolean(Some(self.covers(&input, &self.value(&args[0], scope)?)?))),
            Func::Intersect | Func::Exclude => self.sift(func, input, &self.value(&args[0], scope)?),
            Func::Union => self.distinct(input, self.value(&args[0], scope)?),
            Func::Combine => {
                let mut out = input;
                out.extend(self.value(&args[0], scope)?);
                Ok(out)
            }
            Func::Not => Ok(boolean(condition(&input)?.map(|b| !b))),
            _ => self.call_on_values(func, input, args, scope),
        }
    }

    /// Functions whose arguments are plain values.
    fn call_on_values(&self, func: Func, input: Items<'a>, args: &[Op], scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        if let Some(out) = self.tree_function(func, &input, args, scope)? {
            return Ok(out);
        }
        let values = args.iter().map(|arg| self.value(arg, scope)).collect::<Result<Vec<_>>>()?;
        for value in &values {
            single(value)?;
        }
        let values: Vec<Option<&Val>> = values.iter().map(|v| v.first()).collect();
        if func == Func::Join {
            return self.join(&input, values.first().copied().flatten());
        }
        let Some(item) = single(&input)? else { return Ok(Items::new()) };
        if let Some(out) = super::convert::convert(func, item)? {
            return Ok(out);
        }
        if let Some(out) = super::math::function(func, item, &values)? {
            return Ok(out);
        }
        self.string_function(func, item, &values)
    }

    /// The value of an argument, which is evaluated where the call stands.
    pub fn value(&self, arg: &Op, scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        self.within(|| self.eval(arg, scope))
    }

    pub fn integer(&self, arg: &Op, scope: &Scope<'_, 'a>) -> Result<Option<i64>> {
        let items = self.value(arg, scope)?;
        match single(&items)? {
            None => Ok(None),
            Some(item) => item.integer().map(Some).ok_or_else(|| fault("an integer is expected")),
        }
    }

    /// Visits each item with its own `$this` and `$index`.
    fn for_each(
        &self,
        items: &[Val<'a>],
        scope: &Scope<'_, 'a>,
        mut visit: impl FnMut(&Val<'a>, &Scope<'_, 'a>) -> Result<bool>,
    ) -> Result<()> {
        for (index, item) in items.iter().enumerate() {
            let inner = Scope { this: std::slice::from_ref(item), index: Some(index), total: scope.total };
            if !self.within(|| visit(item, &inner))? {
                break;
            }
        }
        Ok(())
    }

    fn exists(&self, input: &[Val<'a>], criterion: Option<&Op>, scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        let Some(criterion) = criterion else { return Ok(boolean(Some(!input.is_empty()))) };
        let mut found = false;
        self.for_each(input, scope, |_, inner| {
            found = self.truth(criterion, inner)? == Some(true);
            Ok(!found)
        })?;
        Ok(boolean(Some(found)))
    }

    fn filter(&self, input: Items<'a>, criterion: &Op, scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        let mut out = Items::new();
        self.for_each(&input, scope, |item, inner| {
            if self.truth(criterion, inner)? == Some(true) {
                out.push(item.clone());
            }
            Ok(true)
        })?;
        Ok(out)
    }

    fn select(&self, input: &[Val<'a>], projection: &Op, scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        let mut out = Items::new();
        self.for_each(input, scope, |_, inner| {
            out.extend(self.eval(projection, inner)?);
            Ok(true)
        })?;
        Ok(out)
    }

    fn all(&self, input: &[Val<'a>], criterion: &Op, scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        let mut all = true;
        self.for_each(input, scope, |_, inner| {
            all = self.truth(criterion, inner)? == Some(true);
            Ok(all)
        })?;
        Ok(boolean(Some(all)))
    }

    /// `repeat` takes each item once, `repeatAll` as often as it is found.
    fn repeat(&self, input: Items<'a>, step: &Op, scope: &Scope<'_, 'a>, once: bool) -> Result<Items<'a>> {
        let mut out = Items::new();
        let mut queue = input;
        while !queue.is_empty() {
            let found = self.select(&queue, step, scope)?;
            queue = Items::new();
            for item in found {
                self.spend(1 + if once { out.len() } else { 0 })?;
                if !once || !out.iter().any(|known| same(known, &item)) {
                    out.push(item.clone());
                    queue.push(item);
                }
            }
        }
        Ok(out)
    }

    fn iif(&self, input: &[Val<'a>], args: &[Op], scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        if input.len() > 1 {
            return Err(fault("`iif` stands on several items"));
        }
        let inner = Scope { this: input, ..*scope };
        let criterion = self.value(&args[0], &inner)?;
        if self.env.strict && single(&criterion)?.is_some_and(|item| item.boolean().is_none()) {
            return Err(fault("the criterion of `iif` is no boolean"));
        }
        let branch = if condition(&criterion)? == Some(true) { args.get(1) } else { args.get(2) };
        branch.map_or(Ok(Items::new()), |branch| self.value(branch, &inner))
    }

    fn aggregate(&self, input: &[Val<'a>], args: &[Op], scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        let mut total = args.get(1).map_or(Ok(Items::new()), |init| self.value(init, scope))?;
        for (index, item) in input.iter().enumerate() {
            let inner = Scope { this: std::slice::from_ref(item), index: Some(index), total: Some(&total) };
            total = self.value(&args[0], &inner)?;
        }
        Ok(total)
    }

    fn define(&self, input: Items<'a>, args: &[Op], scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        let name = self.value(&args[0], scope)?;
        let name = single(&name)?.and_then(Val::text).ok_or_else(|| fault("a variable needs a name"))?.to_owned();
        let known = ["context", "resource", "rootResource", "sct", "loinc", "ucum"];
        let taken = |name: &str| self.defined.borrow().iter().any(|(other, _)| **other == *name);
        if known.contains(&&*name) || taken(&name) {
            return Err(fault("a variable is defined twice"));
        }
        let value = match args.get(1) {
            None => input.clone(),
            Some(arg) => {
                let inner = Scope { this: &input, ..*scope };
                self.value(arg, &inner)?
            }
        };
        self.defined.borrow_mut().push((name.into(), value));
        Ok(input)
    }

    /// By each key in turn; a key that is written with `-` or `desc` sorts downwards. Nothing comes before something, either way.
    fn sort(&self, input: Items<'a>, keys: &[Op], scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        let mut rows: Vec<(Items<'a>, Val<'a>)> = Vec::with_capacity(input.len());
        let this = [Op::This];
        let keys = if keys.is_empty() { &this[..] } else { keys };
        for (index, item) in input.into_iter().enumerate() {
            let this = [item];
            let inner = Scope { this: &this, index: Some(index), total: scope.total };
            let mut row = Items::with_capacity(keys.len());
            for key in keys {
                let key = if let Op::Negate(inner) = key { inner } else { key };
                let value = self.value(key, &inner)?;
                row.push(single(&value)?.cloned().unwrap_or(Val::Type("", "")));
            }
            let [item] = this;
            rows.push((row, item));
        }
        self.spend(rows.len().saturating_mul(8))?;
        let mut failed = None;
        rows.sort_by(|(a, _), (b, _)| {
            for (key, (a, b)) in keys.iter().zip(a.iter().zip(b)) {
                let none = |v: &Val| matches!(v, Val::Type("", ""));
                let found = match (none(a), none(b)) {
                    (true, true) => Ordering::Equal,
                    (true, false) => Ordering::Less,
                    (false, true) => Ordering::Greater,
                    (false, false) => match order(a, b) {
                        Ok(found) => found.unwrap_or(Ordering::Equal),
                        Err(error) => {
                            failed = Some(error);
                            Ordering::Equal
                        }
                    },
                };
                // Nothing comes first in both directions, as the official suite has it.
                let found = match key {
                    Op::Negate(_) if !none(a) && !none(b) => found.reverse(),
                    _ => found,
                };
                if found.is_ne() {
                    return found;
                }
            }
            Ordering::Equal
        });
        failed.map_or_else(|| Ok(rows.into_iter().map(|(_, item)| item).collect()), Err)
    }

    /// Whether each of the parts is in the whole.
    fn covers(&self, whole: &[Val<'a>], parts: &[Val<'a>]) -> Result<bool> {
        for part in parts {
            self.spend(whole.len())?;
            if !whole.iter().any(|item| equal(item, part) == Some(true)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn sift(&self, func: Func, input: Items<'a>, other: &[Val<'a>]) -> Result<Items<'a>> {
        let wanted = func == Func::Intersect;
        let mut out = Items::new();
        for item in input {
            self.spend(other.len())?;
            if other.iter().any(|o| equal(o, &item) == Some(true)) == wanted {
                out.push(item);
            }
        }
        if wanted { self.distinct(Items::new(), out) } else { Ok(out) }
    }
}

/// The same node, or equal values.
fn same(a: &Val, b: &Val) -> bool {
    match (a, b) {
        (Val::Node { node: a, sibling: x, .. }, Val::Node { node: b, sibling: y, .. }) if !a.is_null() => {
            std::ptr::eq(*a, *b) && x.is_some() == y.is_some()
        }
        _ => equal(a, b) == Some(true),
    }
}

fn booleans<'a>(func: Func, input: &[Val]) -> Result<Items<'a>> {
    let mut values = Vec::with_capacity(input.len());
    for item in input {
        values.push(item.boolean().ok_or_else(|| fault("an item is no boolean"))?);
    }
    Ok(boolean(Some(match func {
        Func::AllTrue => values.iter().all(|b| *b),
        Func::AnyTrue => values.iter().any(|b| *b),
        Func::AllFalse => values.iter().all(|b| !*b),
        _ => values.iter().any(|b| !*b),
    })))
}
