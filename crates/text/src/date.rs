//! The date that a chat template may ask for. It is given, never read from a clock.

use std::fmt::Write as _;

/// Seconds since 1970-01-01 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixSeconds(pub i64);

/// Characters of a format that templates may ask for.
const FORMAT_MAX: usize = 200;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

struct Moment {
    year: i64,
    month: usize,
    day: i64,
    weekday: usize,
    second: i64,
}

/// The civil date of a count of days, by the arithmetic of 400-year eras that start on the first of March.
fn moment(UnixSeconds(seconds): UnixSeconds) -> Moment {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    let year = era * 400 + year_of_era + i64::from(month < 2);
    Moment { year, month: month as usize, day, weekday: (days + 4).rem_euclid(7) as usize, second }
}

/// The moment in UTC by a format as C's `strftime` takes it; of the conversions, those that templates use.
///
/// # Errors
/// The conversion that is none of them, or a format that is too long.
pub(crate) fn strftime(at: UnixSeconds, format: &str) -> Result<String, String> {
    if format.len() > FORMAT_MAX {
        return Err("the format of a date is too long".to_owned());
    }
    let Moment { year, month, day, weekday, second } = moment(at);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let done = match letters.next() {
            Some('Y') => write!(text, "{year}"),
            Some('y') => write!(text, "{:02}", year.rem_euclid(100)),
            Some('m') => write!(text, "{:02}", month + 1),
            Some('d') => write!(text, "{day:02}"),
            Some('e') => write!(text, "{day:2}"),
            Some('B') => write!(text, "{}", MONTHS[month]),
            Some('b' | 'h') => write!(text, "{}", &MONTHS[month][..3]),
            Some('A') => write!(text, "{}", DAYS[weekday]),
            Some('a') => write!(text, "{}", &DAYS[weekday][..3]),
            Some('H') => write!(text, "{hour:02}"),
            Some('I') => write!(text, "{:02}", (hour + 11) % 12 + 1),
            Some('p') => write!(text, "{}", if hour < 12 { "AM" } else { "PM" }),
            Some('M') => write!(text, "{minute:02}"),
            Some('S') => write!(text, "{:02}", second % 60),
            Some('F') => write!(text, "{year}-{:02}-{day:02}", month + 1),
            Some('T') => write!(text, "{hour:02}:{minute:02}:{:02}", second % 60),
            Some('%') => write!(text, "%"),
            other => {
                return Err(format!("dates have no part %{}", other.map_or(String::new(), String::from)));
            }
        };
        done.expect("a text takes all that is written to it");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        let show = |seconds, format| strftime(UnixSeconds(seconds), format).unwrap();
        assert_eq!(show(0, "%A %d %B %Y %H:%M:%S %p %I"), "Thursday 01 January 1970 00:00:00 AM 12");
        assert_eq!(show(951_782_400, "%d %b %Y"), "29 Feb 2000");
        assert_eq!(show(1_735_689_599, "%F %T %a %e %y 100%%"), "2024-12-31 23:59:59 Tue 31 24 100%");
        assert_eq!(show(-1, "%F"), "1969-12-31");
        assert_eq!(show(4_107_542_400, "%F"), "2100-03-01");
        assert!(strftime(UnixSeconds(0), "%Q").is_err());
        assert!(strftime(UnixSeconds(0), "%").is_err());
        assert!(strftime(UnixSeconds(0), &"x".repeat(FORMAT_MAX + 1)).is_err());
    }
}
