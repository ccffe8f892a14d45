//! What values may look like on the command line.

use std::time::Duration;

/// `host:port` is as good as `http://host:port`.
pub(super) fn address(text: &str) -> Result<String, String> {
    const FORM: &str = "write it like `http://127.0.0.1:7400` or `https://host:7400`";
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let whole = whole.trim_end_matches('/');
    let uri: hyper::Uri = whole.parse().map_err(|_| FORM)?;
    let authority = uri.authority().ok_or(FORM)?;
    let is_plain = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.path_and_query().is_none_or(|rest| rest.as_str() == "/")
        && !authority.as_str().contains('@')
        && !authority.host().is_empty()
        // whatever follows the name is a port that exists: others would be taken for 80
        && (authority.as_str() == authority.host() || authority.port_u16().is_some_and(|port| port > 0));
    if is_plain { Ok(whole.to_owned()) } else { Err(FORM.into()) }
}

/// `30s`, `500ms`, `2m`, `1h`; a number alone is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "write it like `30s`, `500ms` or `2m`, above 0 and at most 24h";
    let (number, unit) = number_and_unit(text);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(FORM.into()),
    };
    let seconds = number.parse::<f64>().map_err(|_| FORM)? * scale;
    // a day: beyond it `grpc-timeout` would need another unit, and nobody waits so long at a terminal
    if (0.001..=86_400.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(FORM.into()) }
}

/// From when on something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// So long ago.
    Ago(Duration),
    /// After the event of that number.
    Number(u64),
}

/// `10m` or `#42`.
pub(super) fn since(text: &str) -> Result<Since, String> {
    match text.strip_prefix('#') {
        Some(number) => number.parse().map(Since::Number).map_err(|_| "write the number of an event like `#42`".into()),
        None => duration(text).map(Since::Ago),
    }
}

/// What the host accepts between two statuses.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if (Duration::from_millis(100)..=Duration::from_mins(1)).contains(&time) => Ok(time),
        _ => Err("must be between 100ms and 60s".into()),
    }
}

/// A tier of nodes.
pub(crate) fn tier(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|tier| *tier <= 2).ok_or_else(|| "must be 0, 1 or 2".into())
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("must be requests per second, above 0 and at most 1000000".into()),
    }
}

/// Computing time of a call, in microseconds: `1ms`, `200us`.
pub(super) fn compute_time(text: &str) -> Result<u32, String> {
    const FORM: &str = "write it like `1ms` or `200us`, from 1us to 60s";
    let (number, unit) = number_and_unit(text);
    let scale = match unit {
        "us" | "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return Err(FORM.into()),
    };
    let us = (number.parse::<f64>().map_err(|_| FORM)? * scale).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "its range is checked")]
    if (1.0..=6e7).contains(&us) { Ok(us as u32) } else { Err(FORM.into()) }
}

/// Bytes: `1MB`, `512KB`, `65536`. KB and KiB are both 1024 bytes, as in the host's configuration.
pub(super) fn size(text: &str) -> Result<u64, String> {
    const FORM: &str = "write it like `1MB` or `512KB`, from 1 B to 4 GB";
    let (number, unit) = number_and_unit(text);
    let scale = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "KB" | "KIB" => 1024.0,
        "MB" | "MIB" => 1_048_576.0,
        "GB" | "GIB" => 1_073_741_824.0,
        _ => return Err(FORM.into()),
    };
    let bytes = number.parse::<f64>().map_err(|_| FORM)? * scale;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "its range is checked")]
    if (1.0..=4_294_967_296.0).contains(&bytes) { Ok(bytes as u64) } else { Err(FORM.into()) }
}

/// A share of requests: `10%`, `0.1`.
pub(super) fn share(text: &str) -> Result<f64, String> {
    const FORM: &str = "write it like `10%` or `0.1`, above 0 and below all; without `--share` it decides for all";
    let share = match text.strip_suffix('%') {
        Some(percents) => percents.trim_end().parse::<f64>().map_err(|_| FORM)? / 100.0,
        None => text.parse::<f64>().map_err(|_| FORM)?,
    };
    if share > 0.0 && share < 1.0 { Ok(share) } else { Err(FORM.into()) }
}

/// A share of requests, all of them included.
pub(super) fn fault_share(text: &str) -> Result<f64, String> {
    match text {
        "100%" | "1" | "1.0" => Ok(1.0),
        text => share(text).map_err(|_| "write it like `10%` or `0.1`, above 0 and at most 100%".into()),
    }
}

/// A delay in milliseconds, from `1ms` to `10m`.
pub(super) fn delay_ms(text: &str) -> Result<u32, String> {
    let ms = duration(text)?.as_millis();
    u32::try_from(ms).ok().filter(|ms| (1..=600_000).contains(ms)).ok_or_else(|| "must be between 1ms and 10m".into())
}

/// `KEY=VALUE`, as a note for policies.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it like `team=search`".into()),
    }
}

/// Of policies, in logs, lists and crates.
pub(crate) fn policy_name(text: &str) -> Result<String, String> {
    if llambo_config::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("give a lower-case letter, then at most 31 of `a-z`, `0-9` and `-`".into())
    }
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "s", "1x", "0s", "-1s", "25h", "1..2s", "inf"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_may_leave_out_its_scheme() {
        assert_eq!(address("10.0.0.1:7400").as_deref(), Ok("http://10.0.0.1:7400"));
        assert_eq!(address("http://h:1/").as_deref(), Ok("http://h:1"));
        assert_eq!(address("https://h").as_deref(), Ok("https://h"));
        for bad in ["", "ftp://h", "http://", "https://", "h:99999", "h:0", "h:", "h:x", "http://user@h", "http://h/path"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_is_a_percentage_or_a_fraction() {
        for (text, expected) in [("10%", 0.1), ("0.1", 0.1), ("99.5%", 0.995), ("12.5 %", 0.125), ("1e-3", 0.001)] {
            let found = share(text).unwrap();
            assert!((found - expected).abs() < 1e-12, "{text}: {found}");
        }
        for bad in ["", "%", "10", "0", "0%", "1", "100%", "1.0", "-10%", "-0.1", "NaN", "inf", "10%%", "ten%"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_of_policies_have_units() {
        assert_eq!(["1ms", "200us", "200µs", "1.5ms", "60s"].map(compute_time), [1000, 200, 200, 1500, 60_000_000].map(Ok));
        for bad in ["1", "", "0ms", "0.1us", "61s", "1m", "ms", "-1ms"] {
            assert!(compute_time(bad).is_err(), "{bad}");
        }
        assert_eq!(["1MB", "1 MiB", "512kb", "65536", "4GB"].map(size), [1 << 20, 1 << 20, 512 << 10, 65_536, 4 << 30].map(Ok));
        for bad in ["", "0", "MB", "5GB", "1TB", "-1MB", "1..2MB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_label_has_a_key_and_maybe_a_value() {
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(label("a="), Ok(("a".into(), String::new())));
        assert!(label("a").is_err() && label("=b").is_err());
    }

    #[test]
    fn a_policy_name_goes_into_logs_and_crates() {
        assert!(policy_name("a").is_ok() && policy_name("latency-aware-2").is_ok() && policy_name(&"a".repeat(32)).is_ok());
        for bad in ["", "2a", "-a", "A", "a_b", "a b", "ä", &"a".repeat(33)] {
            assert!(policy_name(bad).is_err(), "{bad}");
        }
    }
}
