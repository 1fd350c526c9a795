//! How much memory this process holds, as the operating system counts it.

/// The resident set in bytes; `None` where the system does not say (anything but Linux).
pub(crate) fn resident_bytes() -> Option<u64> {
    // `statm` counts in pages, whose size varies; `status` counts in kB.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    parse_resident(&status)
}

/// The `VmRSS` line of a Linux `status` file, in bytes.
fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// `bytes` in MiB with one decimal, or a dash if unknown.
pub(crate) fn mebibytes(bytes: Option<u64>) -> String {
    match bytes {
        Some(bytes) => format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0)),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_line_is_found_among_others() {
        let status = "Name:\tfluxmap\nVmPeak:\t  9000 kB\nVmRSS:\t    2048 kB\nThreads:\t3\n";
        assert_eq!(parse_resident(status), Some(2_097_152));
        assert_eq!(parse_resident("Name:\tfluxmap\n"), None);
        assert_eq!(parse_resident("VmRSS:\tmany kB\n"), None);
    }

    #[test]
    fn mebibytes_are_rounded_to_a_tenth() {
        assert_eq!(mebibytes(Some(2_097_152)), "2.0 MiB");
        assert_eq!(mebibytes(None), "-");
    }
}
