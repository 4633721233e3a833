//! Schedules, in the notation of the cron library that Dapr uses.

use std::{sync::Arc, time::Duration};

use jiff::{Timestamp, ToSpan as _, Zoned, civil, tz::TimeZone};
use trilby_component::properties::duration;

/// When something happens again and again.
#[derive(Debug, Clone)]
pub(super) enum Schedule {
    Every(Duration),
    Calendar(Arc<Calendar>),
}

/// Times of the calendar. Sets of numbers are bits.
#[derive(Debug)]
pub(super) struct Calendar {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// 0 is Sunday.
    weekdays: u64,
    /// Whether a day must be in both sets; else, as both say something, one is enough.
    needs_both_days: bool,
    zone: TimeZone,
}

impl Schedule {
    /// # Errors
    /// What is wrong, in the library's words where it has some.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (zone, text) = zone(text)?;
        if let Some(every) = text.strip_prefix("@every ") {
            let parsed = duration::parse(every).filter(|_| every.ends_with(|c: char| c.is_ascii_alphabetic()));
            let every =
                parsed.ok_or_else(|| format!("failed to parse duration {text}: time: invalid duration {every:?}"))?;
            return if every.is_zero() { Err(format!("duration {text} is zero")) } else { Ok(Self::Every(every)) };
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 0 1 1 *",
            "@monthly" => "0 0 0 1 * *",
            "@weekly" => "0 0 0 * * 0",
            "@daily" | "@midnight" => "0 0 0 * * *",
            "@hourly" => "0 0 * * * *",
            word if word.starts_with('@') => return Err(format!("unrecognized descriptor: {word}")),
            fields => fields,
        };
        let calendar = Calendar::parse(fields, zone)?;
        if calendar.next(Timestamp::now()).is_none() {
            return Err("no day of the calendar is like that".to_owned());
        }
        Ok(Self::Calendar(Arc::new(calendar)))
    }
}

/// The zone that a schedule begins with, else that of this machine, and the rest.
fn zone(text: &str) -> Result<(TimeZone, &str), String> {
    let Some(named) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) else {
        return Ok((TimeZone::system(), text.trim()));
    };
    let (name, rest) = named.split_once(' ').unwrap_or((named, ""));
    let zone = TimeZone::get(name).map_err(|error| format!("provided bad location {name}: {error}"))?;
    Ok((zone, rest.trim()))
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What a field may hold.
struct Bounds {
    min: u32,
    max: u32,
    /// Names of the numbers from `min` on.
    names: &'static [&'static str],
}

const fn bounds(min: u32, max: u32, names: &'static [&'static str]) -> Bounds {
    Bounds { min, max, names }
}

impl Calendar {
    fn parse(text: &str, zone: TimeZone) -> Result<Self, String> {
        let mut fields: Vec<_> = text.split_whitespace().collect();
        match fields.len() {
            5 => fields.insert(0, "0"),
            6 => {}
            found => return Err(format!("expected 5 to 6 fields, found {found}: [{}]", fields.join(" "))),
        }
        let (days, any_day) = set(fields[3], &bounds(1, 31, &[]))?;
        let (weekdays, any_weekday) = set(fields[5], &bounds(0, 6, &WEEKDAYS))?;
        Ok(Self {
            seconds: set(fields[0], &bounds(0, 59, &[]))?.0,
            minutes: set(fields[1], &bounds(0, 59, &[]))?.0,
            hours: set(fields[2], &bounds(0, 23, &[]))?.0,
            days,
            months: set(fields[4], &bounds(1, 12, &MONTHS))?.0,
            weekdays,
            needs_both_days: any_day || any_weekday,
            zone,
        })
    }

    /// The first time after `after`; `None` if none comes within five years.
    ///
    /// Hours that a change of the clocks leaves out are left out here too, and those that come twice count twice.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let first = Timestamp::from_second(after.as_second() + 1).ok()?.to_zoned(self.zone.clone());
        let last_year = first.year() + 5;
        let mut time = first;
        while time.year() <= last_year {
            time = if !has(self.months, time.month()) {
                self.start_of(time.date().first_of_month().checked_add(1.month()).ok()?)?
            } else if !self.is_day(time.date()) {
                self.start_of(time.date().tomorrow().ok()?)?
            } else if !has(self.hours, time.hour()) {
                let into_hour = i64::from(time.minute()) * 60 + i64::from(time.second());
                time.checked_add((3600 - into_hour).seconds()).ok()?
            } else if !has(self.minutes, time.minute()) {
                time.checked_add((60 - i64::from(time.second())).seconds()).ok()?
            } else if !has(self.seconds, time.second()) {
                time.checked_add(1.second()).ok()?
            } else {
                return Some(time.timestamp());
            };
        }
        None
    }

    fn is_day(&self, date: civil::Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.needs_both_days { day && weekday } else { day || weekday }
    }

    fn start_of(&self, date: civil::Date) -> Option<Zoned> {
        date.to_zoned(self.zone.clone()).ok()
    }
}

fn has(set: u64, number: i8) -> bool {
    set & (1 << number) != 0
}

/// The numbers of a field, and whether a star is among what it lists.
fn set(field: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (mut all, mut any) = (0, false);
    for part in field.split(',').filter(|part| !part.is_empty()) {
        let (numbers, is_star) = range(part, bounds)?;
        all |= numbers;
        any |= is_star;
    }
    if all == 0 { Err(format!("empty list: {field}")) } else { Ok((all, any)) }
}

/// `3`, `3-5`, `*` or `?`, each perhaps with a `/step`.
fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (numbers, step) = match text.split_once('/') {
        Some((_, step)) if step.contains('/') => return Err(format!("too many slashes: {text}")),
        Some((numbers, step)) => (numbers, Some(integer(step)?)),
        None => (text, None),
    };
    let (start, end) = match numbers.split_once('-') {
        _ if matches!(numbers, "*" | "?") => (bounds.min, bounds.max),
        Some((_, end)) if end.contains('-') => return Err(format!("too many hyphens: {text}")),
        Some((start, end)) => (number(start, bounds)?, number(end, bounds)?),
        // `5/15` is "from 5 on, every 15".
        None if step.is_some() => (number(numbers, bounds)?, bounds.max),
        None => (number(numbers, bounds)?, number(numbers, bounds)?),
    };
    if start < bounds.min {
        return Err(format!("beginning of range ({start}) below minimum ({}): {text}", bounds.min));
    }
    if end > bounds.max {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", bounds.max));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let bits = (start..=end).step_by(step as usize).fold(0, |bits, number| bits | 1 << number);
    Ok((bits, step == 1 && matches!(numbers, "*" | "?")))
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, String> {
    match bounds.names.iter().zip(bounds.min..).find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        Some((_, number)) => Ok(number),
        None => integer(text),
    }
}

fn integer(text: &str) -> Result<u32, String> {
    let bad = || format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax");
    let number: i64 = text.parse().map_err(|_| bad())?;
    u32::try_from(number).map_err(|_| format!("negative number ({number}) not allowed: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times after `after`, in the zone of the schedule.
    fn times(schedule: &str, after: &str, count: usize) -> Vec<String> {
        let Schedule::Calendar(calendar) = Schedule::parse(schedule).expect(schedule) else { panic!("{schedule}") };
        let mut time = after.parse().expect("a time");
        let mut times = Vec::new();
        for _ in 0..count {
            time = calendar.next(time).expect("comes");
            times.push(time.to_zoned(calendar.zone.clone()).strftime("%m-%d %H:%M:%S").to_string());
        }
        times
    }

    #[test]
    fn schedules_of_the_calendar_come_when_they_say() {
        for (schedule, after, expect) in [
            ("TZ=UTC 30 * * * *", "2026-01-01T00:00:00Z", ["01-01 00:30:00", "01-01 01:30:00"]),
            ("TZ=UTC */15 * * * * *", "2026-01-01T00:00:44.5Z", ["01-01 00:00:45", "01-01 00:01:00"]),
            ("TZ=UTC 5/25 0 0 1 1 ?", "2026-01-01T00:00:05Z", ["01-01 00:00:30", "01-01 00:00:55"]),
            ("TZ=UTC @monthly", "2026-01-31T12:00:00Z", ["02-01 00:00:00", "03-01 00:00:00"]),
            ("TZ=UTC @weekly", "2026-01-01T00:00:00Z", ["01-04 00:00:00", "01-11 00:00:00"]),
            ("TZ=UTC 0 12 13 * FRI", "2026-01-01T00:00:00Z", ["01-02 12:00:00", "01-09 12:00:00"]),
            ("TZ=UTC 0 12 13 * */2", "2026-01-10T13:00:00Z", ["01-11 12:00:00", "01-13 12:00:00"]),
            ("TZ=UTC 0 0 29 feb *", "2026-01-01T00:00:00Z", ["02-29 00:00:00", "02-29 00:00:00"]),
            ("TZ=UTC 0 9-17/8 * jan,JUL mon-fri", "2026-01-30T17:00:00Z", ["07-01 09:00:00", "07-01 17:00:00"]),
            ("CRON_TZ=Europe/Berlin 30 2 * * *", "2026-03-28T12:00:00Z", ["03-30 02:30:00", "03-31 02:30:00"]),
            ("CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-24T12:00:00Z", ["10-25 02:30:00", "10-25 02:30:00"]),
        ] {
            assert_eq!(times(schedule, after, 2), expect, "{schedule}");
        }
    }

    #[test]
    fn intervals_are_go_durations() {
        for (text, expect) in [("@every 1h30m", 5400.0), ("@every 10ms", 0.01), ("TZ=UTC @every 1s", 1.0)] {
            let Schedule::Every(every) = Schedule::parse(text).expect(text) else { panic!("{text}") };
            assert!((every.as_secs_f64() - expect).abs() < 1e-9, "{text}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused_with_the_reason() {
        for (text, expect) in [
            ("* * * *", "expected 5 to 6 fields, found 4: [* * * *]"),
            ("* * * * * * *", "expected 5 to 6 fields, found 7: [* * * * * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("-1 * * * *", "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax"),
            (", * * * *", "empty list: ,"),
            ("0 0 31 2 *", "no day of the calendar is like that"),
            ("@every", "unrecognized descriptor: @every"),
            ("@every soon", "failed to parse duration @every soon: time: invalid duration \"soon\""),
            ("@every 5", "failed to parse duration @every 5: time: invalid duration \"5\""),
            ("@every 0s", "duration @every 0s is zero"),
        ] {
            assert_eq!(Schedule::parse(text).err().as_deref(), Some(expect), "{text}");
        }
        let error = Schedule::parse("TZ=Mars/Olympus * * * * *").expect_err("no such place");
        assert!(error.starts_with("provided bad location Mars/Olympus: "), "{error}");
    }
}
