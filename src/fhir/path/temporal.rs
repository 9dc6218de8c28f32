//! Dates, date-times and times of any precision: reading, comparing (with uncertainty), adding, boundaries.

use std::cmp::Ordering;
use std::fmt;

use jiff::civil;
use jiff::{Span, ToSpan};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    Date,
    DateTime,
    Time,
}

/// How much of a date or time is given. The order is from coarse to fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grain {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Fraction,
}

/// A date, date-time or time as written: what is not given holds its least value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Temporal {
    pub clock: Clock,
    pub grain: Grain,
    year: i16,
    month: i8,
    day: i8,
    hour: i8,
    minute: i8,
    second: i8,
    nanos: i32,
    /// Digits of the fraction as written.
    digits: u8,
    /// Minutes east of UTC.
    zone: Option<i16>,
}

/// A calendar duration, or a UCUM unit of time that is one as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Period {
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
}

struct Digits<'t> {
    rest: &'t str,
}

impl Digits<'_> {
    fn take(&mut self, count: usize) -> Option<u32> {
        let head = self.rest.get(..count)?;
        if !head.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        self.rest = &self.rest[count..];
        head.parse().ok()
    }

    fn skip(&mut self, mark: char) -> bool {
        match self.rest.strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}

impl Temporal {
    const LEAST: Temporal = Temporal {
        clock: Clock::DateTime,
        grain: Grain::Year,
        year: 1,
        month: 1,
        day: 1,
        hour: 0,
        minute: 0,
        second: 0,
        nanos: 0,
        digits: 0,
        zone: None,
    };

    /// `2015`, `2015-02`, `2015-02-04`.
    pub fn date(text: &str) -> Option<Temporal> {
        Temporal::date_time(text).filter(|t| t.clock == Clock::Date)
    }

    /// A date, or with `T` a date-time: `2015T`, `2015-02-04T14`, `2015-02-04T14:34:28.123+10:00`.
    pub fn date_time(text: &str) -> Option<Temporal> {
        let mut at = Digits { rest: text };
        let mut out = Temporal { clock: Clock::Date, ..Temporal::LEAST };
        out.year = i16::try_from(at.take(4)?).ok().filter(|y| *y > 0)?;
        if at.skip('-') {
            out.month = at.take(2)? as i8;
            out.grain = Grain::Month;
            if at.skip('-') {
                out.day = at.take(2)? as i8;
                out.grain = Grain::Day;
            }
        }
        civil::Date::new(out.year, out.month, out.day).ok()?;
        if at.skip('T') {
            out.clock = Clock::DateTime;
            if out.grain == Grain::Day && !at.rest.is_empty() {
                out.read_time(&mut at)?;
                out.zone = read_zone(&mut at)?;
            }
        }
        at.rest.is_empty().then_some(out)
    }

    /// `14`, `14:34`, `14:34:28.123`.
    pub fn time(text: &str) -> Option<Temporal> {
        let mut at = Digits { rest: text };
        let mut out = Temporal { clock: Clock::Time, ..Temporal::LEAST };
        out.read_time(&mut at)?;
        at.rest.is_empty().then_some(out)
    }

    fn read_time(&mut self, at: &mut Digits) -> Option<()> {
        self.hour = at.take(2).filter(|h| *h < 24)? as i8;
        self.grain = Grain::Hour;
        if at.skip(':') {
            self.minute = at.take(2).filter(|m| *m < 60)? as i8;
            self.grain = Grain::Minute;
            if at.skip(':') {
                // A leap second is read as the last second: no calendar here knows where they were.
                self.second = at.take(2).filter(|s| *s <= 60)?.min(59) as i8;
                self.grain = Grain::Second;
                if at.skip('.') {
                    let count = at.rest.bytes().take_while(u8::is_ascii_digit).count();
                    let kept = at.rest.get(..count.min(9)).filter(|d| !d.is_empty())?;
                    self.nanos = kept.parse::<i32>().ok()? * 10i32.pow(9 - kept.len() as u32);
                    self.digits = kept.len() as u8;
                    self.grain = Grain::Fraction;
                    at.rest = &at.rest[count..];
                }
            }
        }
        Some(())
    }

    /// An instant in UTC, with milliseconds.
    pub fn instant(milliseconds: i64) -> Option<Temporal> {
        let stamp = jiff::Timestamp::from_millisecond(milliseconds).ok()?;
        let mut out = Temporal { grain: Grain::Fraction, digits: 3, zone: Some(0), ..Temporal::LEAST };
        out.set(jiff::tz::TimeZone::UTC.to_datetime(stamp));
        Some(out)
    }

    /// The same, down to the day.
    pub fn to_date(self) -> Temporal {
        let grain = self.grain.min(Grain::Day);
        Temporal { clock: Clock::Date, zone: None, ..self }.cut(grain)
    }

    /// The time of day.
    pub fn to_time(self) -> Option<Temporal> {
        (self.clock == Clock::DateTime && self.grain >= Grain::Hour).then_some(Temporal {
            clock: Clock::Time,
            year: 1,
            month: 1,
            day: 1,
            zone: None,
            ..self
        })
    }

    pub fn as_date_time(self) -> Temporal {
        Temporal { clock: Clock::DateTime, ..self }
    }

    /// With everything below the grain at its least value.
    fn cut(self, grain: Grain) -> Temporal {
        let keep = |at: Grain, value: i8, least: i8| if grain >= at { value } else { least };
        Temporal {
            grain,
            month: keep(Grain::Month, self.month, 1),
            day: keep(Grain::Day, self.day, 1),
            hour: keep(Grain::Hour, self.hour, 0),
            minute: keep(Grain::Minute, self.minute, 0),
            second: keep(Grain::Second, self.second, 0),
            nanos: if grain >= Grain::Fraction { self.nanos } else { 0 },
            digits: if grain >= Grain::Fraction { self.digits } else { 0 },
            ..self
        }
    }

    fn civil(self) -> civil::DateTime {
        civil::DateTime::new(self.year, self.month, self.day, self.hour, self.minute, self.second, self.nanos)
            .expect("the parts were checked when they were read")
    }

    fn set(&mut self, at: civil::DateTime) {
        (self.year, self.month, self.day) = (at.year(), at.month(), at.day());
        (self.hour, self.minute, self.second) = (at.hour(), at.minute(), at.second());
        self.nanos = at.subsec_nanosecond();
    }

    /// In UTC, if a zone is given.
    fn in_utc(self) -> Temporal {
        match self.zone {
            Some(zone) if zone != 0 => {
                let mut out = Temporal { zone: Some(0), ..self };
                if let Ok(moved) = self.civil().checked_sub(i64::from(zone).minutes()) {
                    out.set(moved);
                }
                out
            }
            _ => self,
        }
    }

    /// The first and last nanosecond that may be meant, in a zone of this many hours.
    fn span(self, hours: (i64, i64)) -> Option<(civil::DateTime, civil::DateTime)> {
        let first = self.civil();
        let step: Span = match self.grain {
            Grain::Year => 1.year(),
            Grain::Month => 1.month(),
            Grain::Day => 1.day(),
            Grain::Hour => 1.hour(),
            Grain::Minute => 1.minute(),
            Grain::Second | Grain::Fraction => 1.nanosecond(),
        };
        let last = first.checked_add(step).ok()?.checked_sub(1.nanosecond()).ok()?;
        Some((first.checked_sub(hours.0.hours()).ok()?, last.checked_sub(hours.1.hours()).ok()?))
    }

    /// Which one is earlier. None: it cannot be said at the precision given, or the two are not of one kind.
    pub fn compare(self, other: Temporal) -> Option<Ordering> {
        if (self.clock == Clock::Time) != (other.clock == Clock::Time) {
            return None;
        }
        if self.zone.is_some() != other.zone.is_some() {
            // Somewhere on earth: 14 hours ahead of UTC to 12 behind.
            let hours = |t: Temporal| if t.zone.is_some() { (0, 0) } else { (14, -12) };
            let (a_first, a_last) = self.in_utc().span(hours(self))?;
            let (b_first, b_last) = other.in_utc().span(hours(other))?;
            return match () {
                () if a_last < b_first => Some(Ordering::Less),
                () if a_first > b_last => Some(Ordering::Greater),
                () => None,
            };
        }
        let (a, b) = (self.in_utc(), other.in_utc());
        // Seconds and their fraction are one precision.
        let level = |t: Temporal| t.grain.min(Grain::Second);
        let both = level(a).min(level(b));
        let finest = if both == Grain::Second { Grain::Fraction } else { both };
        match a.cut(finest).civil().cmp(&b.cut(finest).civil()) {
            Ordering::Equal if level(a) != level(b) => None,
            found => Some(found),
        }
    }

    pub fn same_kind(self, other: Temporal) -> bool {
        (self.clock == Clock::Time) == (other.clock == Clock::Time)
    }

    /// Adds whole calendar durations; what is finer than the value is given in is turned into its precision first.
    /// None when the result is no date of the calendar.
    pub fn plus(self, count: i64, period: Period) -> Option<Temporal> {
        let (count, period) = self.coarsen(count, period);
        let span = Span::new();
        let span = match period {
            Period::Year => span.try_years(count),
            Period::Month => span.try_months(count),
            Period::Week => span.try_weeks(count),
            Period::Day => span.try_days(count),
            Period::Hour => span.try_hours(count),
            Period::Minute => span.try_minutes(count),
            Period::Second => span.try_seconds(count),
            Period::Millisecond => span.try_milliseconds(count),
        }
        .ok()?;
        let mut out = self;
        if self.clock == Clock::Time {
            let time = self.civil().time().wrapping_add(span);
            out.set(self.civil().date().to_datetime(time));
        } else {
            out.set(self.civil().checked_add(span).ok()?);
        }
        if period == Period::Millisecond && self.grain == Grain::Fraction {
            out.digits = out.digits.max(3);
        }
        (out.year > 0).then(|| out.cut(self.grain))
    }

    fn coarsen(self, count: i64, period: Period) -> (i64, Period) {
        let mut at = (count, period);
        loop {
            at = match (at.1, self.grain) {
                (Period::Millisecond, grain) if grain < Grain::Second => (at.0 / 1000, Period::Second),
                (Period::Second, grain) if grain < Grain::Second => (at.0 / 60, Period::Minute),
                (Period::Minute, grain) if grain < Grain::Minute => (at.0 / 60, Period::Hour),
                (Period::Hour, grain) if grain < Grain::Hour => (at.0 / 24, Period::Day),
                (Period::Week, grain) if grain < Grain::Day => (at.0.saturating_mul(7), Period::Day),
                (Period::Day, Grain::Month) => (at.0 / 30, Period::Month),
                (Period::Day, Grain::Year) => (at.0 / 365, Period::Year),
                (Period::Month, Grain::Year) => (at.0 / 12, Period::Year),
                _ => return at,
            };
        }
    }

    /// The number of digits given: 4 for a year, 8 for a day, 17 for milliseconds; of a time 2 to 9.
    pub fn precision(self) -> i64 {
        let whole = match self.grain {
            Grain::Year => 4,
            Grain::Month => 6,
            Grain::Day => 8,
            Grain::Hour => 10,
            Grain::Minute => 12,
            Grain::Second => 14,
            Grain::Fraction => 14 + i64::from(self.digits),
        };
        if self.clock == Clock::Time { whole - 8 } else { whole }
    }

    /// The earliest (or latest) value of this precision that may be meant; None for a precision there is not.
    pub fn boundary(self, precision: Option<i64>, high: bool) -> Option<Temporal> {
        let usual = match self.clock {
            Clock::Date => 8,
            Clock::DateTime => 17,
            Clock::Time => 9,
        };
        let precision = precision.unwrap_or(usual) + if self.clock == Clock::Time { 8 } else { 0 };
        let grain = match precision {
            4 if self.clock != Clock::Time => Grain::Year,
            6 if self.clock != Clock::Time => Grain::Month,
            8 if self.clock != Clock::Time => Grain::Day,
            10 if self.clock != Clock::Date => Grain::Hour,
            12 if self.clock != Clock::Date => Grain::Minute,
            14 if self.clock != Clock::Date => Grain::Second,
            17 if self.clock != Clock::Date => Grain::Fraction,
            _ => return None,
        };
        let edge = self.span((0, 0)).map(|(first, last)| if high { last } else { first })?;
        let mut out = self;
        if self.grain < grain {
            out.set(edge);
            // Milliseconds: the boundary is of the precision asked for.
            out.nanos = out.nanos / 1_000_000 * 1_000_000;
        }
        let mut out = out.cut(grain);
        out.digits = if grain == Grain::Fraction { 3 } else { 0 };
        if grain == Grain::Fraction && high && self.grain == Grain::Second {
            out.nanos = 999_000_000;
        }
        if self.clock == Clock::DateTime && grain >= Grain::Hour && self.zone.is_none() {
            out.zone = Some(if high { -12 * 60 } else { 14 * 60 });
        }
        if grain <= Grain::Day {
            out.zone = None;
        }
        Some(out)
    }
}

/// `Z` or `+10:00`; an absent zone is fine, a malformed one is None.
fn read_zone(at: &mut Digits) -> Option<Option<i16>> {
    if at.skip('Z') {
        return Some(Some(0));
    }
    let sign = match at.rest.chars().next() {
        Some('+') => 1,
        Some('-') => -1,
        _ => return Some(None),
    };
    at.rest = &at.rest[1..];
    let hours = at.take(2).filter(|h| *h <= 14)? as i16;
    if !at.skip(':') {
        return None;
    }
    let minutes = at.take(2).filter(|m| *m < 60)? as i16;
    Some(Some(sign * (hours * 60 + minutes)))
}

impl fmt::Display for Temporal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.clock != Clock::Time {
            write!(f, "{:04}", self.year)?;
            if self.grain >= Grain::Month {
                write!(f, "-{:02}", self.month)?;
            }
            if self.grain >= Grain::Day {
                write!(f, "-{:02}", self.day)?;
            }
            if self.grain >= Grain::Hour {
                f.write_str("T")?;
            }
        }
        if self.grain >= Grain::Hour {
            write!(f, "{:02}", self.hour)?;
        }
        if self.grain >= Grain::Minute {
            write!(f, ":{:02}", self.minute)?;
        }
        if self.grain >= Grain::Second {
            write!(f, ":{:02}", self.second)?;
        }
        if self.grain >= Grain::Fraction {
            let all = format!("{:09}", self.nanos);
            write!(f, ".{}", &all[..usize::from(self.digits.max(1))])?;
        }
        match self.zone {
            Some(0) => f.write_str("Z"),
            Some(zone) => {
                let sign = if zone < 0 { '-' } else { '+' };
                write!(f, "{sign}{:02}:{:02}", zone.abs() / 60, zone.abs() % 60)
            }
            None => Ok(()),
        }
    }
}

impl Period {
    /// By the keyword of FHIRPath: `year`, `years`.
    pub fn of_keyword(word: &str) -> Option<Period> {
        Some(match word {
            "year" | "years" => Period::Year,
            "month" | "months" => Period::Month,
            "week" | "weeks" => Period::Week,
            "day" | "days" => Period::Day,
            "hour" | "hours" => Period::Hour,
            "minute" | "minutes" => Period::Minute,
            "second" | "seconds" => Period::Second,
            "millisecond" | "milliseconds" => Period::Millisecond,
            _ => return None,
        })
    }

    /// By UCUM code, where it is the same length in every calendar (months and years are not).
    pub fn of_ucum(code: &str) -> Option<Period> {
        Some(match code {
            "wk" => Period::Week,
            "d" => Period::Day,
            "h" => Period::Hour,
            "min" => Period::Minute,
            "s" => Period::Second,
            "ms" => Period::Millisecond,
            _ => return None,
        })
    }

    /// The UCUM unit of the same length; for months and years only nearly so.
    pub fn ucum(self) -> &'static str {
        match self {
            Period::Year => "a",
            Period::Month => "mo",
            Period::Week => "wk",
            Period::Day => "d",
            Period::Hour => "h",
            Period::Minute => "min",
            Period::Second => "s",
            Period::Millisecond => "ms",
        }
    }
}
