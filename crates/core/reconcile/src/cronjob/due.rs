//! When a schedule is due: the next time, and the last one that is not in the future.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use meta::cron::{Fields, Schedule};

/// A schedule that names no day for so long never does (the thirtieth of February).
const YEARS_MAX: i16 = 5;

/// A schedule and where its hours are meant.
#[derive(Clone, Debug)]
pub struct Timetable {
    pub schedule: Schedule,
    pub zone: TimeZone,
}

impl Timetable {
    /// The first time after `after`. Hours that a clock change leaves out are not due, those that it repeats are due
    /// twice.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.schedule {
            Schedule::Every(seconds) => {
                let seconds = i64::try_from(*seconds).ok()?;
                Timestamp::from_second(after.as_second().checked_add(seconds)?).ok()
            }
            Schedule::Fields(fields) => {
                let minute = after.as_second().div_euclid(60) + 1;
                let start = Timestamp::from_second(minute * 60).ok()?.to_zoned(self.zone.clone());
                let last_year = start.year().saturating_add(YEARS_MAX);
                first_match(fields, start, last_year)
            }
        }
    }

    /// The last time after `from` and not after `now`, and how many there are: at most `max` are counted.
    pub fn missed(&self, from: Timestamp, now: Timestamp, max: usize) -> (Option<Timestamp>, usize) {
        let (mut last, mut count) = (None, 0);
        let mut time = self.next(from);
        while let Some(due) = time.filter(|due| *due <= now) {
            (last, count) = (Some(due), count + 1);
            if count == max {
                return (self.last_before(due, now), count);
            }
            time = self.next(due);
        }
        (last, count)
    }

    /// The last time that is not after `now`; `known` is one.
    fn last_before(&self, known: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if let Schedule::Every(seconds) = &self.schedule {
            let seconds = i64::try_from(*seconds).ok()?;
            let rounds = (now.as_second() - known.as_second()) / seconds;
            return Timestamp::from_second(known.as_second() + rounds * seconds).ok();
        }
        // The next time after t rises with t: between `known` and now lies the last t from which one is due by now.
        let (mut low, mut high) = (known.as_second() - 1, now.as_second());
        let due = |second: i64| self.next(Timestamp::from_second(second).ok()?).filter(|due| *due <= now);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if due(middle).is_some() {
                low = middle;
            } else {
                high = middle;
            }
        }
        due(low)
    }
}

fn allows(bits: u64, value: impl Into<i64>) -> bool {
    bits & (1 << value.into()) != 0
}

fn is_day(fields: &Fields, time: &Zoned) -> bool {
    let weekday = time.weekday().since(Weekday::Sunday);
    let (day, weekday) = (allows(fields.days, time.day()), allows(fields.weekdays, weekday));
    if fields.any_day || fields.any_weekday { day && weekday } else { day || weekday }
}

/// Steps over months, days, hours and minutes that do not match. `time` is at the start of a minute.
fn first_match(fields: &Fields, mut time: Zoned, last_year: i16) -> Option<Timestamp> {
    while time.year() <= last_year {
        if !allows(fields.months, time.month()) {
            time = time.last_of_month().ok()?.tomorrow().ok()?.start_of_day().ok()?;
        } else if !is_day(fields, &time) {
            time = time.tomorrow().ok()?.start_of_day().ok()?;
        } else if !allows(fields.hours, time.hour()) {
            let left = 60 - i64::from(time.minute());
            time = time.checked_add(SignedDuration::from_mins(left)).ok()?;
        } else if !allows(fields.minutes, time.minute()) {
            time = time.checked_add(SignedDuration::from_mins(1)).ok()?;
        } else {
            return Some(time.timestamp());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timetable(schedule: &str, zone: &str) -> Timetable {
        Timetable { schedule: Schedule::parse(schedule).unwrap(), zone: meta::zones::find(zone).unwrap() }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_time_is_found() {
        for (schedule, zone, after, expected) in [
            ("* * * * *", "UTC", "2030-01-01T00:00:00Z", "2030-01-01T00:01:00Z"),
            ("*/15 * * * *", "UTC", "2030-01-01T00:15:01Z", "2030-01-01T00:30:00Z"),
            ("30 6-16/4 * * 1-5", "UTC", "2030-01-04T14:30:00Z", "2030-01-07T06:30:00Z"),
            ("0 0 29 2 *", "UTC", "2030-01-01T00:00:00Z", "2032-02-29T00:00:00Z"),
            // Day and weekday named: either is enough.
            ("0 0 13 * 5", "UTC", "2030-01-05T00:00:00Z", "2030-01-11T00:00:00Z"),
            ("0 0 13 * 5", "UTC", "2030-01-11T00:00:00Z", "2030-01-13T00:00:00Z"),
            ("@yearly", "UTC", "2030-06-01T00:00:00Z", "2031-01-01T00:00:00Z"),
            ("@every 90s", "UTC", "2030-01-01T00:00:10Z", "2030-01-01T00:01:40Z"),
            ("0 9 * * *", "Asia/Kolkata", "2030-01-01T00:00:00Z", "2030-01-01T03:30:00Z"),
            // Left out on 31 March in Zurich, repeated on 27 October.
            ("30 2 * * *", "Europe/Zurich", "2030-03-30T02:00:00Z", "2030-04-01T00:30:00Z"),
            ("30 2 * * *", "Europe/Zurich", "2030-10-26T22:00:00Z", "2030-10-27T00:30:00Z"),
            ("30 2 * * *", "Europe/Zurich", "2030-10-27T00:30:00Z", "2030-10-27T01:30:00Z"),
        ] {
            let next = timetable(schedule, zone).next(at(after));
            assert_eq!(next, Some(at(expected)), "{schedule} in {zone} after {after}");
        }
        assert_eq!(timetable("0 0 30 2 *", "UTC").next(at("2030-01-01T00:00:00Z")), None);
    }

    #[test]
    fn the_last_missed_time_is_found_however_many_there_were() {
        for (schedule, from, now, expected, count) in [
            ("0 * * * *", "2030-01-01T00:00:00Z", "2030-01-01T00:59:59Z", None, 0),
            ("0 * * * *", "2030-01-01T00:00:00Z", "2030-01-01T03:00:00Z", Some("2030-01-01T03:00:00Z"), 3),
            ("* * * * *", "2030-01-01T00:00:00Z", "2035-01-01T00:00:30Z", Some("2035-01-01T00:00:00Z"), 101),
            // Dense at nine o'clock only: the count of the last day tells nothing of the hours before.
            ("* 9 * * *", "2030-01-01T08:00:00Z", "2030-01-09T08:00:00Z", Some("2030-01-08T09:59:00Z"), 101),
            ("@every 7s", "2030-01-01T00:00:00Z", "2030-01-02T00:00:00Z", Some("2030-01-01T23:59:54Z"), 101),
        ] {
            let found = timetable(schedule, "UTC").missed(at(from), at(now), 101);
            assert_eq!(found, (expected.map(at), count), "{schedule} from {from}");
        }
    }
}
