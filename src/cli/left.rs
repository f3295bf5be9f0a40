//! How long something still lasts, in a word or two.

use jiff::{SignedDuration, Timestamp};

/// `3649d`, `23h 12m`, `4m 3s` until `end`; `expired` after it.
pub(crate) fn left(end: Timestamp, now: Timestamp) -> String {
    let seconds = end.duration_since(now).as_secs();
    if end <= now {
        return format!("expired {} ago", span(now.duration_since(end)));
    }
    span(SignedDuration::from_secs(seconds))
}

/// The two largest units of a time.
pub(crate) fn span(time: SignedDuration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (7.., ..) => format!("{days}d"),
        (1.., ..) => format!("{days}d {hours}h"),
        (_, 1.., _) => format!("{hours}h {minutes}m"),
        (_, _, 1..) => format!("{minutes}m {}s", seconds % 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_its_two_largest_units() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let cases = [
            (86_400 * 3649 + 7, "3649d"),
            (86_400 * 2 + 3600 * 5, "2d 5h"),
            (3600 * 23 + 60 * 12 + 1, "23h 12m"),
            (63, "1m 3s"),
            (9, "9s"),
            (0, "expired 0s ago"),
            (-3605, "expired 1h 0m ago"),
        ];
        for (seconds, text) in cases {
            assert_eq!(left(now + SignedDuration::from_secs(seconds), now), text);
        }
    }
}
