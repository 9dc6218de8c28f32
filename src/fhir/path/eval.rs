//! Evaluation of the compiled form.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

use serde_json::Map;

use super::compare::{equal, equal_collections, equivalent_collections, order};
use super::ops::{Binary, Func, Op, Step, TypeName};
use super::types::{Member, Ty, by_suffix};
use super::value::{Items, NULL, Val};
use super::{Env, Item};
use crate::error::{Error, Kind, Result};
use crate::fhir::json::Node;

/// Steps that one evaluation may take. The largest example of R4 needs under 100,000 for any expression of the suite.
const FUEL: u32 = 2_000_000;
/// Longest string an expression may make, in bytes.
const LONGEST_STRING: usize = 1 << 20;

/// One evaluation.
pub(super) struct Machine<'a, 'e> {
    pub env: &'e Env<'a>,
    pub context: Val<'a>,
    fuel: Cell<u32>,
    /// Variables of `defineVariable`, innermost last.
    pub defined: RefCell<Vec<(Arc<str>, Items<'a>)>>,
}

/// What `$this`, `$index` and `$total` are; names begin at `this`.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s, 'a> {
    /// One item, or none at all.
    pub this: &'s [Val<'a>],
    pub index: Option<usize>,
    pub total: Option<&'s [Val<'a>]>,
}

/// An error of FHIRPath.
pub(super) fn fault(what: &str) -> Error {
    Error::invalid(format!("FHIRPath: {what}."))
}

pub(super) fn too_costly() -> Error {
    Error::new(Kind::TooCostly, "FHIRPath: the evaluation takes more steps than the limit allows.")
}

/// Evaluates at an item.
pub(super) fn run<'a>(op: &Op, env: &Env<'a>, at: Val<'a>) -> Result<Vec<Item<'a>>> {
    let machine = Machine { env, context: at.clone(), fuel: Cell::new(FUEL), defined: RefCell::new(Vec::new()) };
    let scope = Scope { this: &[at], index: None, total: None };
    Ok(machine.eval(op, &scope)?.into_iter().map(Val::into_item).collect())
}

/// The only item, if there is one.
///
/// # Errors
/// Several items.
pub(super) fn single<'v, 'a>(items: &'v [Val<'a>]) -> Result<Option<&'v Val<'a>>> {
    match items {
        [] => Ok(None),
        [item] => Ok(Some(item)),
        _ => Err(fault("a single item is expected, there are several")),
    }
}

/// A collection as a condition: a single item that is no boolean counts as true.
pub(super) fn condition(items: &[Val]) -> Result<Option<bool>> {
    Ok(single(items)?.map(|item| item.boolean().unwrap_or(true)))
}

pub(super) fn boolean<'a>(value: Option<bool>) -> Items<'a> {
    value.map(Val::Boolean).into_iter().collect()
}

impl<'a> Machine<'a, '_> {
    /// Takes `steps` off what is left.
    pub fn spend(&self, steps: usize) -> Result<()> {
        let left = u32::try_from(steps).ok().and_then(|steps| self.fuel.get().checked_sub(steps));
        self.fuel.set(left.ok_or_else(too_costly)?);
        Ok(())
    }

    /// A string that the expression made.
    pub fn text(&self, text: String) -> Result<Val<'a>> {
        if text.len() > LONGEST_STRING {
            return Err(Error::new(Kind::TooCostly, "FHIRPath: a string longer than 1 MiB would be made."));
        }
        self.spend(1 + text.len() / 64)?;
        Ok(Val::string(text))
    }

    pub fn eval(&self, op: &Op, scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        self.spend(1)?;
        Ok(match op {
            Op::This => scope.this.to_vec(),
            Op::Index => scope.index.map(|n| Val::Integer(n as i64)).into_iter().collect(),
            Op::Total => scope.total.map(<[Val]>::to_vec).unwrap_or_default(),
            Op::Nothing => Items::new(),
            Op::Literal(value) => vec![literal(value)],
            Op::Variable(name) => self.variable(name)?,
            Op::Root(name) => scope.this.iter().filter(|item| is_type(item, name)).cloned().collect(),
            Op::Path { from, steps } => self.path(from.as_deref(), steps, scope)?,
            Op::Item(on, index) => self.indexed(on, index, scope)?,
            Op::Binary(op, a, b) => self.binary(*op, a, b, scope)?,
            Op::Negate(on) => super::math::negate(self.eval(on, scope)?)?,
            Op::Plus(on) => {
                let items = self.eval(on, scope)?;
                match single(&items)? {
                    Some(item) if item.decimal().is_none() && !matches!(item, Val::Quantity(_)) => {
                        return Err(fault("`+` is put before something that is no number"));
                    }
                    _ => items,
                }
            }
            Op::Is(on, name) => {
                let items = self.eval(on, scope)?;
                boolean(single(&items)?.map(|item| is_type(item, name)))
            }
            Op::As(on, name, function) => {
                let items = self.eval(on, scope)?;
                if self.env.strict && *function {
                    single(&items)?;
                }
                items.into_iter().filter(|item| as_type(item, name, self.env.strict)).collect()
            }
            Op::OfType(on, name) => {
                let items = self.eval(on, scope)?;
                items.into_iter().filter(|item| as_type(item, name, self.env.strict)).collect()
            }
            Op::Call { on, func, args } => self.call(on, *func, args, scope)?,
        })
    }

    /// As a condition, without collections where the operation allows it.
    pub fn truth(&self, op: &Op, scope: &Scope<'_, 'a>) -> Result<Option<bool>> {
        match op {
            Op::Literal(Val::Boolean(value)) => Ok(Some(*value)),
            Op::Binary(Binary::Equal, path, literal) if matches!(**literal, Op::Literal(_)) => {
                let Op::Literal(value) = &**literal else { return Ok(None) };
                let items = self.eval(path, scope)?;
                Ok(equal_collections(&items, std::slice::from_ref(value)))
            }
            Op::Is(on, name) if matches!(&**on, Op::Call { on, func: Func::Resolve, .. } if matches!(**on, Op::This)) =>
            {
                let Some(item) = single(scope.this)? else { return Ok(None) };
                Ok(self.resolve(item)?.map(|target| is_type(&target, name)))
            }
            Op::Binary(logic @ (Binary::And | Binary::Or | Binary::Xor | Binary::Implies), a, b) => {
                self.logic(*logic, a, b, scope)
            }
            _ => self.within(|| condition(&self.eval(op, scope)?)),
        }
    }

    /// Variables defined inside are gone after.
    pub fn within<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.defined.borrow().len();
        let out = run();
        self.defined.borrow_mut().truncate(before);
        out
    }

    fn path(&self, from: Option<&Op>, steps: &[Step], scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        let mut out = Items::new();
        match from {
            None => {
                for item in scope.this {
                    self.walk(item, steps, &mut out)?;
                }
            }
            Some(Op::Root(name)) => {
                for item in scope.this.iter().filter(|item| is_type(item, name)) {
                    self.walk(item, steps, &mut out)?;
                }
            }
            Some(op) => {
                for item in &self.eval(op, scope)? {
                    self.walk(item, steps, &mut out)?;
                }
            }
        }
        Ok(out)
    }

    /// Goes down the steps, depth first, which is document order.
    pub fn walk(&self, item: &Val<'a>, steps: &[Step], out: &mut Items<'a>) -> Result<()> {
        let Some((step, rest)) = steps.split_first() else {
            out.push(item.clone());
            return Ok(());
        };
        self.spend(1)?;
        match item {
            Val::Node { node, sibling, ty } => {
                let Some(object) = node.as_object().or_else(|| sibling.and_then(Node::as_object)) else {
                    return Ok(());
                };
                if *ty == Ty::UNKNOWN {
                    return self.walk_unknown(object, step, rest, out);
                }
                for member in step.sym.and_then(|sym| ty.members(sym)).unwrap_or_default() {
                    self.walk_member(object, member, rest, out)?;
                }
                Ok(())
            }
            Val::Type(namespace, name) => match &*step.name {
                "namespace" => self.walk(&Val::string(*namespace), rest, out),
                "name" => self.walk(&Val::string(*name), rest, out),
                _ => Ok(()),
            },
            Val::Quantity(quantity) => match &*step.name {
                "value" => self.walk(&Val::Decimal(quantity.value), rest, out),
                "unit" | "code" => self.walk(&Val::string(quantity.unit.text()), rest, out),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn walk_member(
        &self,
        object: &'a Map<String, Node>,
        member: &Member,
        rest: &[Step],
        out: &mut Items<'a>,
    ) -> Result<()> {
        let value = object.get(member.key);
        let sibling = member.sibling.as_deref().and_then(|key| object.get(key));
        self.each(value, sibling, member.ty, &mut |item| self.walk(&item, rest, out))
    }

    /// Every item of a member: the elements of an array, each with its sibling.
    pub fn each(
        &self,
        value: Option<&'a Node>,
        sibling: Option<&'a Node>,
        ty: Ty,
        visit: &mut dyn FnMut(Val<'a>) -> Result<()>,
    ) -> Result<()> {
        let mut one = |node: &'a Node, sibling: Option<&'a Node>| {
            let sibling = sibling.filter(|s| !s.is_null());
            if node.is_null() && sibling.is_none() {
                return Ok(());
            }
            let ty = if ty.holds_resource() { Ty::of_resource(node).unwrap_or(ty) } else { ty };
            visit(Val::Node { node, sibling, ty })
        };
        match (value, sibling) {
            (None, None) => Ok(()),
            (Some(Node::Array(nodes)), sibling) => {
                let siblings = sibling.and_then(Node::as_array).map_or(&[][..], Vec::as_slice);
                for n in 0..nodes.len().max(siblings.len()) {
                    one(nodes.get(n).unwrap_or(&NULL), siblings.get(n))?;
                }
                Ok(())
            }
            (None, Some(Node::Array(siblings))) => siblings.iter().try_for_each(|s| one(&NULL, Some(s))),
            (value, sibling) => one(value.unwrap_or(&NULL), sibling),
        }
    }

    /// Of a node whose type is not known: the member of that name, or one with a type as suffix.
    fn walk_unknown(
        &self,
        object: &'a Map<String, Node>,
        step: &Step,
        rest: &[Step],
        out: &mut Items<'a>,
    ) -> Result<()> {
        let mut visit = |item: Val<'a>| self.walk(&item, rest, out);
        let sibling = object.get(&format!("_{}", step.name));
        if let Some(value) = object.get(&*step.name) {
            let ty = Ty::of_resource(value).unwrap_or(Ty::UNKNOWN);
            return self.each(Some(value), sibling, ty, &mut visit);
        }
        if sibling.is_some() {
            return self.each(None, sibling, Ty::UNKNOWN, &mut visit);
        }
        for (key, value) in object {
            let suffix = key.strip_prefix(&*step.name).filter(|s| s.starts_with(|c: char| c.is_ascii_uppercase()));
            if let Some(ty) = suffix.and_then(by_suffix) {
                self.each(Some(value), object.get(&format!("_{key}")), ty, &mut visit)?;
            }
        }
        Ok(())
    }

    fn indexed(&self, on: &Op, index: &Op, scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        let mut items = self.eval(on, scope)?;
        let index = self.within(|| self.eval(index, scope))?;
        let Some(index) = single(&index)? else { return Ok(Items::new()) };
        let index = index.integer().ok_or_else(|| fault("an index is no integer"))?;
        match usize::try_from(index) {
            Ok(at) if at < items.len() => Ok(vec![items.swap_remove(at)]),
            _ => Ok(Items::new()),
        }
    }

    fn variable(&self, name: &str) -> Result<Items<'a>> {
        if let Some((_, items)) = self.defined.borrow().iter().rev().find(|(known, _)| **known == *name) {
            return Ok(items.clone());
        }
        if let Some((_, items)) = self.env.variables.iter().rev().find(|(known, _)| known == name) {
            return items
                .iter()
                .map(|item| Val::of_item(item).ok_or_else(|| fault("a variable holds what is not of a resource")))
                .collect();
        }
        let text = match name {
            "context" => return Ok(vec![self.context.clone()]),
            "resource" | "rootResource" => return Ok(vec![Val::root(self.env.resource)]),
            "sct" => Cow::Borrowed("http://snomed.info/sct"),
            "loinc" => Cow::Borrowed("http://loinc.org"),
            "ucum" => Cow::Borrowed(super::UCUM),
            _ => match (name.strip_prefix("vs-"), name.strip_prefix("ext-")) {
                (Some(id), _) => Cow::Owned(format!("http://hl7.org/fhir/ValueSet/{id}")),
                (_, Some(id)) => Cow::Owned(format!("http://hl7.org/fhir/StructureDefinition/{id}")),
                _ => return Err(fault("a variable that is not defined is used")),
            },
        };
        Ok(vec![Val::string(&*text)])
    }

    fn binary(&self, op: Binary, a: &Op, b: &Op, scope: &Scope<'_, 'a>) -> Result<Items<'a>> {
        if matches!(op, Binary::And | Binary::Or | Binary::Xor | Binary::Implies) {
            return self.logic(op, a, b, scope).map(boolean);
        }
        let left = self.within(|| self.eval(a, scope))?;
        let right = self.within(|| self.eval(b, scope))?;
        self.spend(left.len().min(right.len()))?;
        Ok(match op {
            Binary::Union => self.distinct(left, right)?,
            Binary::Equal => boolean(equal_collections(&left, &right)),
            Binary::NotEqual => boolean(equal_collections(&left, &right).map(|same| !same)),
            Binary::Equivalent => boolean(Some(equivalent_collections(&left, &right)?)),
            Binary::NotEquivalent => boolean(Some(!equivalent_collections(&left, &right)?)),
            Binary::In => self.member_of(&left, &right)?,
            Binary::Contains => self.member_of(&right, &left)?,
            Binary::Less | Binary::LessOrEqual | Binary::Greater | Binary::GreaterOrEqual => {
                let (Some(a), Some(b)) = (single(&left)?, single(&right)?) else { return Ok(Items::new()) };
                boolean(order(a, b)?.map(|found| match op {
                    Binary::Less => found.is_lt(),
                    Binary::LessOrEqual => found.is_le(),
                    Binary::Greater => found.is_gt(),
                    _ => found.is_ge(),
                }))
            }
            Binary::Concatenate => {
                let text = |items: &[Val]| -> Result<String> {
                    let Some(item) = single(items)? else { return Ok(String::new()) };
                    item.text().map(str::to_owned).ok_or_else(|| fault("`&` joins strings only"))
                };
                vec![self.text(text(&left)? + &text(&right)?)?]
            }
            _ => {
                let (Some(a), Some(b)) = (single(&left)?, single(&right)?) else { return Ok(Items::new()) };
                self.arithmetic(op, a, b)?.into_iter().collect()
            }
        })
    }

    /// `in` and `contains`.
    fn member_of(&self, item: &[Val<'a>], of: &[Val<'a>]) -> Result<Items<'a>> {
        let Some(item) = single(item)? else { return Ok(Items::new()) };
        self.spend(of.len())?;
        Ok(boolean(Some(of.iter().any(|other| equal(item, other) == Some(true)))))
    }

    /// The logic of three values; the second operand is left alone where the first decides.
    fn logic(&self, op: Binary, a: &Op, b: &Op, scope: &Scope<'_, 'a>) -> Result<Option<bool>> {
        let left = self.truth(a, scope)?;
        match (op, left) {
            (Binary::And, Some(false)) => return Ok(Some(false)),
            (Binary::Or, Some(true)) => return Ok(Some(true)),
            (Binary::Implies, Some(false)) => return Ok(Some(true)),
            _ => {}
        }
        let right = self.truth(b, scope)?;
        Ok(match (op, left, right) {
            (Binary::And, _, Some(false)) => Some(false),
            (Binary::And, Some(true), Some(true)) => Some(true),
            (Binary::Or | Binary::Implies, _, Some(true)) => Some(true),
            (Binary::Or, Some(false), Some(false)) => Some(false),
            (Binary::Implies, Some(true), Some(false)) => Some(false),
            (Binary::Xor, Some(a), Some(b)) => Some(a != b),
            _ => None,
        })
    }

    /// The distinct items of two collections, in order.
    pub fn distinct(&self, left: Items<'a>, right: Items<'a>) -> Result<Items<'a>> {
        // Expressions of search are unions of which all but one part are empty: one item needs no comparison.
        if right.is_empty() && left.len() < 2 {
            return Ok(left);
        }
        if left.is_empty() && right.len() < 2 {
            return Ok(right);
        }
        let mut out = Items::with_capacity(left.len() + right.len());
        for item in left.into_iter().chain(right) {
            self.spend(out.len())?;
            if !out.iter().any(|known| equal(known, &item) == Some(true)) {
                out.push(item);
            }
        }
        Ok(out)
    }
}

/// A literal as an item of this evaluation.
pub(super) fn literal<'a>(value: &Val<'static>) -> Val<'a> {
    value.clone()
}

/// `is`: the type itself or one that derives from it.
pub(super) fn is_type(item: &Val, name: &TypeName) -> bool {
    if let Some(system) = item.system_name() {
        return !name.fhir && (system == &*name.name || &*name.name == "Any");
    }
    match (name.ty, item.ty()) {
        _ if name.system => false,
        (Some(wanted), ty) if ty != Ty::UNKNOWN => ty.is_a(wanted),
        (_, Ty::UNKNOWN) => match item {
            Val::Node { node, .. } => node.get("resourceType").and_then(Node::as_str) == Some(&*name.name),
            _ => false,
        },
        _ => false,
    }
}

/// `as` and `ofType`: primitives are of exactly the type. Search expressions say `as(DateTime)` and mean `dateTime`.
fn as_type(item: &Val, name: &TypeName, strict: bool) -> bool {
    let ty = item.ty();
    if ty.is_primitive() && !name.system {
        let wanted = name.ty.or_else(|| if strict { None } else { by_suffix(&name.name) });
        return wanted == Some(ty);
    }
    is_type(item, name)
}
