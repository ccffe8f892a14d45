//! `grpc-timeout`: how long the caller is willing to wait.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// Digits a timeout may have; gRPC's own limit.
const MAX_DIGITS: usize = 8;

/// What the caller set as its timeout, measured from when it sent the request.
///
/// A header that cannot be read counts as none, as in other gRPC servers.
pub fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    parse(metadata.get("grpc-timeout")?.to_str().ok()?)
}

/// Reads `TimeoutValue TimeoutUnit` of gRPC over HTTP/2: up to 8 digits, then one of `H M S m u n`.
pub fn parse(header: &str) -> Option<Duration> {
    let unit = header.chars().last()?;
    let digits = header.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_hours(value)),
        'M' => Some(Duration::from_mins(value)),
        'S' => Some(Duration::from_secs(value)),
        'm' => Some(Duration::from_millis(value)),
        'u' => Some(Duration::from_micros(value)),
        'n' => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        let cases = [
            ("3H", Duration::from_hours(3)),
            ("1M", Duration::from_mins(1)),
            ("42S", Duration::from_secs(42)),
            ("13m", Duration::from_millis(13)),
            ("2u", Duration::from_micros(2)),
            ("82n", Duration::from_nanos(82)),
            ("99999999H", Duration::from_hours(99_999_999)),
        ];
        for (header, expected) in cases {
            assert_eq!(parse(header), Some(expected), "{header}");
        }
    }

    #[test]
    fn what_is_no_timeout_counts_as_none() {
        for header in ["", "S", "5", "5x", "-5S", "+5S", "1.5S", "123456789S", "5S ", "5µ"] {
            assert_eq!(parse(header), None, "{header:?}");
        }
    }

    #[test]
    fn the_header_is_found_in_the_metadata() {
        let mut request = tonic::Request::new(());
        assert_eq!(timeout(request.metadata()), None);
        request.set_timeout(Duration::from_millis(250));
        assert_eq!(timeout(request.metadata()), Some(Duration::from_millis(250)));
    }
}
