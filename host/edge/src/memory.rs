//! How much memory this process holds.

/// Resident bytes; 0 where the system does not say.
pub(crate) fn resident_bytes() -> u64 {
    std::fs::read_to_string("/proc/self/status").ok().and_then(|status| parse(&status)).unwrap_or(0)
}

/// The `VmRSS` line of Linux's `/proc/<pid>/status`, which is in KiB whatever the page size.
fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_read() {
        assert_eq!(parse("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2048 * 1024));
        assert_eq!(parse("Name: x\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_holds_something() {
        assert!(resident_bytes() > 64 * 1024);
    }
}
