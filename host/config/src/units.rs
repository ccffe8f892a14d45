//! Sizes and durations as they are written in the file.

use std::time::Duration;

/// What sizes may look like, for messages.
pub(crate) const SIZE_EXAMPLE: &str = "a number of bytes or a size with KB, MB or GB, such as `128MB`";

/// What durations may look like, for messages.
pub(crate) const DURATION_EXAMPLE: &str = "a duration with ms, s, m or h, such as `30s`";

/// KB and KiB are both 1024 bytes: nobody who writes `128MB` of guest memory means 122 MiB.
const SIZES: [(&str, u64); 7] =
    [("B", 1), ("KB", 1 << 10), ("KiB", 1 << 10), ("MB", 1 << 20), ("MiB", 1 << 20), ("GB", 1 << 30), ("GiB", 1 << 30)];

const DURATIONS_MS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// `128MB`, `1.5 GiB`: whole bytes.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// `250ms`, `1.5h`: whole milliseconds.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &DURATIONS_MS).map(Duration::from_millis)
}

/// The shortest exact way to write a size.
pub(crate) fn show_size(bytes: u64) -> String {
    show(bytes, &[("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10), ("B", 1)])
}

/// The shortest exact way to write a duration; parts of a millisecond are not written.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(ms, &[("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)])
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| c != '.' && !c.is_ascii_digit())?);
    let unit = unit.trim_start();
    let &(_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    // Decimal by integers, because a float would turn 0.1 into something that is no whole number of any unit.
    let (whole, fraction, scale) = match number.split_once('.') {
        Some((whole, digits)) => (whole, digits.parse().ok()?, 10_u64.checked_pow(u32::try_from(digits.len()).ok()?)?),
        None => (number, 0, 1),
    };
    let parts = whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(fraction)?;
    let product = u128::from(parts) * u128::from(factor);
    (product % u128::from(scale) == 0).then(|| u64::try_from(product / u128::from(scale)).ok())?
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    let smallest = units.last().map_or(("", 1), |unit| *unit);
    let (name, factor) = if value == 0 {
        smallest
    } else {
        units.iter().copied().find(|(_, factor)| value.is_multiple_of(*factor)).unwrap_or(smallest)
    };
    format!("{}{name}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_in_1024_whichever_way_they_are_written() {
        for text in ["128MB", "128MiB", "128 mb", "0.125GB", "131072KB", "134217728B"] {
            assert_eq!(parse_size(text), Some(128 << 20), "{text}");
        }
        for text in
            ["", "MB", "128", "-1MB", "1e3KB", "1.MB", "1..5MB", ".5MB", "0.3KB", "128M", "99999999999GB", "1 2MB", "+1MB"]
        {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_whole_milliseconds() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5m"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("0s"), Some(Duration::ZERO));
        for text in ["30", "", "s", "0.5ms", "5 min", "1m30s", "-1s", "999999999999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        for bytes in [0, 1, 1000, 1 << 10, 1536, 64 << 30, u64::MAX] {
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
        for ms in [0, 1, 1500, 60_000, 86_400_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
        assert_eq!(show_size(1536 << 20), "1536MB");
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
    }
}
