//! The prefixes of R4 (search, 2.21.1.4.1) on ranges: `eq` when the range of the search value contains that of the
//! resource, and so on. Dates are ranges of whole milliseconds, both ends included; numbers are compared as written.

use crate::fhir::date::Range;
use crate::search::query::{Prefix, WantedNumber};

/// Whether the dates of a resource satisfy the prefix and the dates of the query. `Ap`: the query is already widened.
pub(super) fn date(prefix: Prefix, wanted: Range, found: Range) -> bool {
    let within = wanted.lo <= found.lo && found.hi <= wanted.hi;
    let reaches_above = found.hi > wanted.hi;
    let reaches_below = found.lo < wanted.lo;
    match prefix {
        Prefix::Eq => within,
        Prefix::Ne => !within,
        Prefix::Gt => reaches_above,
        Prefix::Lt => reaches_below,
        Prefix::Ge => reaches_above || within,
        Prefix::Le => reaches_below || within,
        Prefix::Sa => found.lo > wanted.hi,
        Prefix::Eb => found.hi < wanted.lo,
        Prefix::Ap => found.lo <= wanted.hi && wanted.lo <= found.hi,
    }
}

/// Whether a number or range of a resource satisfies the number of the query. `eq`, `ne` use the implicit range of the
/// digits given, the others the number itself, `ap` 10 % of it (R4, 2.21.1.5.2 and 2.21.1.4.1). `slack` (relative) is
/// what two floating point conversions may differ by: 0 where nothing was converted.
pub(super) fn number(wanted: &WantedNumber, lo: f64, hi: f64, slack: f64) -> bool {
    let near = |a: f64, b: f64| {
        let size = a.abs().max(b.abs());
        a == b || (size.is_finite() && (a - b).abs() <= slack * size)
    };
    let below = |a: f64, b: f64| a < b && !near(a, b);
    let value = wanted.value;
    // The range of the digits is half open: 5.4 is up to, not including, 5.45.
    let within = !below(lo, wanted.lo) && (below(hi, wanted.hi) || (near(lo, value) && near(hi, value)));
    match wanted.prefix {
        Prefix::Eq => within,
        Prefix::Ne => !within,
        Prefix::Gt => below(value, hi),
        Prefix::Lt => below(lo, value),
        Prefix::Ge => !below(hi, value),
        Prefix::Le => !below(value, lo),
        Prefix::Sa => below(value, lo),
        Prefix::Eb => below(hi, value),
        Prefix::Ap => {
            let tenth = value.abs() / 10.0;
            !below(hi, value - tenth) && !below(value + tenth, lo)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Prefix; 9] =
        [Prefix::Eq, Prefix::Ne, Prefix::Gt, Prefix::Lt, Prefix::Ge, Prefix::Le, Prefix::Sa, Prefix::Eb, Prefix::Ap];

    /// Which of eq ne gt lt ge le sa eb ap hold, as text.
    fn holding(check: impl Fn(Prefix) -> bool) -> String {
        ALL.into_iter().filter(|p| check(*p)).map(|p| format!("{p:?} ").to_lowercase()).collect::<String>()
    }

    /// Every way in which a range can lie to the searched one, [10, 19].
    #[test]
    fn dates_by_the_table_of_prefixes() {
        let wanted = Range { lo: 10, hi: 19 };
        for (lo, hi, hits) in [
            (10, 19, "eq ge le ap "),
            (12, 13, "eq ge le ap "),
            (5, 9, "ne lt le eb "),
            (20, 25, "ne gt ge sa "),
            (5, 12, "ne lt le ap "),
            (15, 25, "ne gt ge ap "),
            (5, 25, "ne gt lt ge le ap "),
            (5, 19, "ne lt le ap "),
            (10, 25, "ne gt ge ap "),
            (i64::MIN, 12, "ne lt le ap "),
            (12, i64::MAX, "ne gt ge ap "),
            (i64::MIN, i64::MAX, "ne gt lt ge le ap "),
            (i64::MIN, 5, "ne lt le eb "),
        ] {
            assert_eq!(holding(|p| date(p, wanted, Range { lo, hi })), hits, "[{lo}, {hi}]");
        }
    }

    /// 100 means [99.5, 100.5) for eq and ne, 100 for the rest, [90, 110] for ap.
    #[test]
    fn numbers_by_the_table_of_prefixes() {
        for (lo, hi, hits) in [
            (100.0, 100.0, "eq ge le ap "),
            (100.4, 100.4, "eq gt ge sa ap "),
            (99.5, 99.5, "eq lt le eb ap "),
            (100.5, 100.5, "ne gt ge sa ap "),
            (110.0, 110.0, "ne gt ge sa ap "),
            (111.0, 111.0, "ne gt ge sa "),
            (89.9, 89.9, "ne lt le eb "),
            (50.0, 150.0, "ne gt lt ge le ap "),
            (f64::NEG_INFINITY, 5.0, "ne lt le eb "),
            (105.0, f64::INFINITY, "ne gt ge sa ap "),
        ] {
            let wanted = |prefix| WantedNumber { prefix, value: 100.0, lo: 99.5, hi: 100.5 };
            assert_eq!(holding(|p| number(&wanted(p), lo, hi, 0.0)), hits, "[{lo}, {hi}]");
        }
    }

    #[test]
    fn conversions_may_differ_in_the_last_digit() {
        let wanted = |prefix| WantedNumber { prefix, value: 0.3, lo: 0.25, hi: 0.35 };
        let found = 0.1 + 0.2;
        assert_eq!(holding(|p| number(&wanted(p), found, found, 1e-12)), "eq ge le ap ");
    }
}
