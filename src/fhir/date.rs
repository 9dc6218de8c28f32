//! FHIR dates of any precision as ranges of instants. Must not know the clock.

use std::sync::OnceLock;

use jiff::civil;
use jiff::tz::TimeZone;

use crate::error::{Error, Result};

/// The instants a date may mean: both ends included, in milliseconds since 1970 UTC. Open ends are i64::MIN and MAX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub lo: i64,
    pub hi: i64,
}

/// How far a date says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    Year,
    Month,
    Day,
    /// Only in searches: elements that say a time say seconds.
    Minute,
    Second,
    /// Fractions of a second, whatever their number of digits.
    Fraction,
}

/// The parts of a date as written, each in its limits, the day one that its month has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    pub year: i16,
    /// 1 where the text does not say it; so `day`.
    pub month: i8,
    pub day: i8,
    pub hour: i8,
    pub minute: i8,
    /// 60 for a leap second.
    pub second: i8,
    /// First millisecond that the fraction covers, and how many it covers: `.1` is 100 of them from 100.
    pub milli: i64,
    pub millis: i64,
    pub precision: Precision,
    /// Minutes east of UTC, if the text says.
    pub offset: Option<i32>,
}

static ZONE: OnceLock<TimeZone> = OnceLock::new();

/// Sets the zone in which dates without an offset are read (`Europe/Berlin`); until then it is UTC. Stored search
/// values follow from it: once for a server, before the first date.
///
/// # Errors
/// `Kind::Invalid` for an unknown name, or when another zone was set before.
pub fn set_zone(name: &str) -> Result<()> {
    let zone = if name == "UTC" {
        TimeZone::UTC
    } else {
        TimeZone::get(name).map_err(|e| Error::invalid(format!("no such time zone: {name}")).caused_by(e))?
    };
    if *ZONE.get_or_init(|| zone.clone()) == zone {
        Ok(())
    } else {
        Err(Error::invalid("another time zone is in use already"))
    }
}

/// `2026`, `2026-01`, `2026-01-31`, `2026-01-31T08:15`, with seconds, fractions and offset. A value without an offset
/// is read in the zone of the server (`set_zone`).
///
/// # Errors
/// `Kind::Invalid` for anything else, the 30th of February included.
pub fn parse(text: &str) -> Result<Range> {
    parse_in(text, ZONE.get().unwrap_or(&TimeZone::UTC)).map(|(range, _)| range)
}

/// As [`parse`], with the precision of the text.
///
/// # Errors
/// As [`parse`].
pub fn parse_precise(text: &str) -> Result<(Range, Precision)> {
    parse_in(text, ZONE.get().unwrap_or(&TimeZone::UTC))
}

fn parse_in(text: &str, zone: &TimeZone) -> Result<(Range, Precision)> {
    let fields = Fields::scan(text).ok_or_else(|| {
        Error::invalid("not a date: expected YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss with an offset")
    })?;
    Ok((fields.range(zone), fields.precision))
}

impl Fields {
    /// Reads the text; None when it is no date of any precision.
    pub fn scan(text: &str) -> Option<Fields> {
        let mut at = Scan { bytes: text.as_bytes() };
        let mut fields = Fields {
            year: i16::try_from(at.number(4)?).ok()?,
            month: 1,
            day: 1,
            hour: 0,
            minute: 0,
            second: 0,
            milli: 0,
            millis: 1000,
            precision: Precision::Year,
            offset: None,
        };
        if fields.year == 0 {
            return None;
        }
        if at.take(b'-') {
            fields.month = at.within(1, 12)?;
            fields.precision = Precision::Month;
            if at.take(b'-') {
                fields.day = at.within(1, days_of(fields.year, fields.month))?;
                fields.precision = Precision::Day;
                if at.take(b'T') {
                    fields.time(&mut at)?;
                }
            }
        }
        at.bytes.is_empty().then_some(fields)
    }

    fn time(&mut self, at: &mut Scan<'_>) -> Option<()> {
        self.hour = at.within(0, 23)?;
        at.take(b':').then_some(())?;
        self.minute = at.within(0, 59)?;
        self.precision = Precision::Minute;
        if at.take(b':') {
            self.second = at.within(0, 60)?;
            self.precision = Precision::Second;
            if at.take(b'.') {
                (self.milli, self.millis) = at.fraction()?;
                self.precision = Precision::Fraction;
            }
        }
        self.offset = at.offset()?;
        Some(())
    }

    /// The instants meant; `zone` counts when the text has no offset.
    fn range(&self, zone: &TimeZone) -> Range {
        let (start, length) = match self.precision {
            Precision::Year | Precision::Month | Precision::Day => {
                let (next_year, next_month, next_day) = self.following_day();
                let lo = local_ms(zone, self.year, self.month, self.day, 0);
                return Range { lo, hi: local_ms(zone, next_year, next_month, next_day, 0) - 1 };
            }
            Precision::Minute => (0, 60_000),
            Precision::Second | Precision::Fraction => (i64::from(self.second) * 1000 + self.milli, self.millis),
        };
        let minutes = i64::from(self.hour) * 60 + i64::from(self.minute);
        let lo = start
            + match self.offset {
                Some(offset) => {
                    days_from_1970(self.year, self.month, self.day) * 86_400_000
                        + (minutes - i64::from(offset)) * 60_000
                }
                None => local_ms(zone, self.year, self.month, self.day, minutes),
            };
        Range { lo, hi: lo + length - 1 }
    }

    /// The day after the last one meant; may be in the year 10000.
    fn following_day(&self) -> (i16, i8, i8) {
        match self.precision {
            Precision::Year => (self.year + 1, 1, 1),
            Precision::Month if self.month == 12 => (self.year + 1, 1, 1),
            Precision::Month => (self.year, self.month + 1, 1),
            _ if self.day < days_of(self.year, self.month) => (self.year, self.month, self.day + 1),
            _ if self.month < 12 => (self.year, self.month + 1, 1),
            _ => (self.year + 1, 1, 1),
        }
    }
}

/// Milliseconds of a local time; `minutes` counts from midnight. Of a time that the clocks repeat the first counts, one
/// that they skip is as much later (RFC 5545). The last day and a bit of the year 9999, which no zone knows, is UTC's.
fn local_ms(zone: &TimeZone, year: i16, month: i8, day: i8, minutes: i64) -> i64 {
    let utc = days_from_1970(year, month, day) * 86_400_000 + minutes * 60_000;
    if *zone == TimeZone::UTC {
        return utc;
    }
    let hour = i8::try_from(minutes / 60).unwrap_or(0);
    let minute = i8::try_from(minutes % 60).unwrap_or(0);
    civil::DateTime::new(year, month, day, hour, minute, 0, 0)
        .and_then(|local| zone.to_timestamp(local))
        .map_or(utc, jiff::Timestamp::as_millisecond)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
fn days_from_1970(year: i16, month: i8, day: i8) -> i64 {
    // Years start in March, so that the leap day is the last of its year.
    let (y, m) = (i64::from(year) - i64::from(month <= 2), (i64::from(month) + 9) % 12);
    let (era, of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let of_year = (153 * m + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn days_of(year: i16, month: i8) -> i8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
}

impl Scan<'_> {
    fn take(&mut self, wanted: u8) -> bool {
        match self.bytes.split_first() {
            Some((&first, rest)) if first == wanted => {
                self.bytes = rest;
                true
            }
            _ => false,
        }
    }

    fn number(&mut self, digits: usize) -> Option<i32> {
        let (head, rest) = self.bytes.split_at_checked(digits)?;
        self.bytes = rest;
        head.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i32::from(b - b'0')))
    }

    fn within(&mut self, lowest: i8, highest: i8) -> Option<i8> {
        let n = i8::try_from(self.number(2)?).ok()?;
        (lowest..=highest).contains(&n).then_some(n)
    }

    /// Digits after the point as the first millisecond and the number of them.
    fn fraction(&mut self) -> Option<(i64, i64)> {
        let digits = self.bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        let (head, rest) = self.bytes.split_at(digits);
        self.bytes = rest;
        let counted = digits.min(3);
        let n = head[..counted].iter().fold(0, |n, b| n * 10 + i64::from(b - b'0'));
        let unit = [1000, 100, 10, 1][counted];
        (digits > 0).then_some((n * unit, unit))
    }

    /// `Z`, `+02:00` or nothing: the outer None is a fault.
    fn offset(&mut self) -> Option<Option<i32>> {
        if self.take(b'Z') {
            return Some(Some(0));
        }
        let sign = if self.take(b'+') {
            1
        } else if self.take(b'-') {
            -1
        } else {
            return Some(None);
        };
        let hours = self.within(0, 14)?;
        self.take(b':').then_some(())?;
        let minutes = self.within(0, if hours == 14 { 0 } else { 59 })?;
        Some(Some(sign * (i32::from(hours) * 60 + i32::from(minutes))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> (i64, i64) {
        let (range, _) = parse_in(text, &TimeZone::UTC).expect(text);
        (range.lo, range.hi)
    }

    fn ms(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().expect(text).as_millisecond()
    }

    #[test]
    fn each_precision_has_its_range() {
        for (text, lo, hi) in [
            ("2026", "2026-01-01T00:00:00Z", "2026-12-31T23:59:59.999Z"),
            ("2026-02", "2026-02-01T00:00:00Z", "2026-02-28T23:59:59.999Z"),
            ("2024-02", "2024-02-01T00:00:00Z", "2024-02-29T23:59:59.999Z"),
            ("2000-02-29", "2000-02-29T00:00:00Z", "2000-02-29T23:59:59.999Z"),
            ("2026-12", "2026-12-01T00:00:00Z", "2026-12-31T23:59:59.999Z"),
            ("2026-12-31", "2026-12-31T00:00:00Z", "2026-12-31T23:59:59.999Z"),
            ("2026-01-31T08:15", "2026-01-31T08:15:00Z", "2026-01-31T08:15:59.999Z"),
            ("2026-01-31T08:15:30Z", "2026-01-31T08:15:30Z", "2026-01-31T08:15:30.999Z"),
            ("2026-01-31T08:15:30.1Z", "2026-01-31T08:15:30.100Z", "2026-01-31T08:15:30.199Z"),
            ("2026-01-31T08:15:30.123456Z", "2026-01-31T08:15:30.123Z", "2026-01-31T08:15:30.123Z"),
            ("2026-01-31T08:15:30+02:00", "2026-01-31T06:15:30Z", "2026-01-31T06:15:30.999Z"),
            ("2026-01-01T00:15:30.5+14:00", "2025-12-31T10:15:30.500Z", "2025-12-31T10:15:30.599Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z", "2017-01-01T00:00:00.999Z"),
            ("0001", "0001-01-01T00:00:00Z", "0001-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(range(text), (ms(lo), ms(hi)), "{text}");
        }
        assert_eq!(range("9999").1, 253_402_300_799_999);
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "26",
            "20260",
            "2026-",
            "2026-13",
            "2026-00",
            "2026-1",
            "2026-02-29",
            "2026-02-30",
            "1900-02-29",
            "2026-04-31",
            "2026-01-32",
            "0000",
            "-2026",
            "2026-01-31T",
            "2026-01-31T08",
            "2026-01-31T24:00:00Z",
            "2026-01-31T08:60:00Z",
            "2026-01-31T08:15:61Z",
            "2026-01-31T08:15:30.Z",
            "2026-01-31T08:15:30+14:30",
            "2026-01-31T08:15:30+15:00",
            "2026-01-31T08:15:30+0200",
            "2026-01-31 08:15",
            "2026-01-31Z",
            "2026-01-31T08:15:30z",
            "２０２６",
            "2026-01-31T08:15:30Zx",
        ] {
            assert!(parse_in(text, &TimeZone::UTC).is_err(), "{text}");
        }
    }

    #[test]
    fn the_zone_counts_without_an_offset() {
        let berlin = TimeZone::get("Europe/Berlin").expect("a zone");
        let range = |text| parse_in(text, &berlin).map(|(r, _)| (r.lo, r.hi)).expect(text);
        assert_eq!(range("2026-01-31"), (ms("2026-01-30T23:00:00Z"), ms("2026-01-31T22:59:59.999Z")));
        // The day the clocks go forward has 23 hours.
        assert_eq!(range("2026-03-29"), (ms("2026-03-28T23:00:00Z"), ms("2026-03-29T21:59:59.999Z")));
        assert_eq!(range("2026-07-01T12:00"), (ms("2026-07-01T10:00:00Z"), ms("2026-07-01T10:00:59.999Z")));
        assert_eq!(range("2026-07-01T12:00:00Z").0, ms("2026-07-01T12:00:00Z"));
        assert_eq!(range("9999-12-31"), (253_402_214_400_000, 253_402_300_799_999));
        assert!(set_zone("Nowhere/Atlantis").is_err());
    }

    #[test]
    fn precisions_are_told() {
        for (text, precision) in [
            ("2026", Precision::Year),
            ("2026-01", Precision::Month),
            ("2026-01-31", Precision::Day),
            ("2026-01-31T08:15", Precision::Minute),
            ("2026-01-31T08:15:00", Precision::Second),
            ("2026-01-31T08:15:00.0Z", Precision::Fraction),
        ] {
            assert_eq!(parse_precise(text).expect(text).1, precision);
        }
    }

    proptest! {
        #[test]
        fn days_agree_with_the_calendar(year in 1i16..=9999, month in 1i8..=12, day in 1i8..=28) {
            let date = civil::date(year, month, day);
            let text = date.to_string();
            let expected = date.to_zoned(TimeZone::UTC).expect("in range").timestamp().as_millisecond();
            prop_assert_eq!(range(&text).0, expected);
            prop_assert_eq!(i64::from(days_of(year, month)), i64::from(date.days_in_month()));
        }

        #[test]
        fn no_text_breaks_it(text in "[0-9T:Z+.-]{0,30}|.{0,12}") {
            if let Some(fields) = Fields::scan(&text) {
                let range = fields.range(&TimeZone::UTC);
                prop_assert!(range.lo <= range.hi);
            }
        }
    }
}
