//! Sets of completion indexes, in the compressed text form that a Job's status has: `1,3-5,7`.

use std::fmt;

/// Ordered ranges, both ends included, that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i64, i64)>);

impl Indexes {
    /// Reads the text form, less what is not below `completions`. What cannot be read is left out: the status is
    /// written by this controller, and a damaged interval must not stop the Job.
    pub fn parse(text: &str, completions: i64) -> Self {
        let mut ranges = Vec::new();
        for interval in text.split(',') {
            let (first, last) = interval.split_once('-').unwrap_or((interval, interval));
            let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) else { continue };
            if first < completions && first <= last {
                ranges.push((first, last.min(completions - 1)));
            }
        }
        Self::from_ranges(ranges)
    }

    fn from_ranges(mut ranges: Vec<(i64, i64)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(known) if first <= known.1 + 1 => known.1 = known.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::from_ranges(self.0.iter().chain(&other.0).copied().collect())
    }

    pub fn contains(&self, index: i64) -> bool {
        let after = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(after).is_some_and(|(first, _)| *first <= index)
    }

    /// How many indexes are in the set.
    pub fn len(&self) -> i64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many indexes both sets have.
    pub fn common(&self, other: &Self) -> i64 {
        let (mut mine, mut theirs, mut count) = (0, 0, 0);
        while let (Some(a), Some(b)) = (self.0.get(mine), other.0.get(theirs)) {
            count += (a.1.min(b.1) - a.0.max(b.0) + 1).max(0);
            if a.1 <= b.1 {
                mine += 1;
            } else {
                theirs += 1;
            }
        }
        count
    }

    /// The `count` lowest indexes below `completions` that are not in the set.
    pub fn first_missing(&self, count: usize, completions: i64) -> Vec<i64> {
        let (mut missing, mut next) = (Vec::new(), 0);
        let ends = [(completions, completions)];
        for (first, last) in self.0.iter().chain(&ends) {
            let room = count - missing.len();
            missing.extend((next..(*first).min(completions)).take(room));
            next = next.max(last + 1);
        }
        missing
    }
}

impl FromIterator<i64> for Indexes {
    fn from_iter<I: IntoIterator<Item = i64>>(indexes: I) -> Self {
        Self::from_ranges(indexes.into_iter().map(|index| (index, index)).collect())
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (first, last)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Indexes {
        Indexes::parse(text, 100)
    }

    #[test]
    fn texts_are_read_and_written() {
        for text in ["", "1", "1,2", "1-3", "0,2,4-6,99"] {
            assert_eq!(set(text).to_string(), text);
        }
        assert_eq!(set("1,2,3").to_string(), "1-3");
        assert_eq!(set("98-120,130").to_string(), "98,99");
        assert_eq!(set("x,2,3-y,5").to_string(), "2,5");
        assert_eq!([5, 1, 3, 2].into_iter().collect::<Indexes>().to_string(), "1-3,5");
    }

    #[test]
    fn sets_are_asked_and_joined() {
        let some = set("1-3,7");
        assert_eq!((some.len(), some.contains(2), some.contains(7), some.contains(4)), (4, true, true, false));
        assert_eq!(some.union(&set("4,6")).to_string(), "1-4,6,7");
        assert_eq!((some.common(&set("0-2,7-9")), some.common(&set("4-6"))), (3, 0));
        assert_eq!(some.first_missing(3, 100), [0, 4, 5]);
        assert_eq!(some.first_missing(9, 6), [0, 4, 5]);
        assert_eq!(set("").first_missing(2, 1), [0]);
    }
}
