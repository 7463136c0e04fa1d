//! The real broker that tests may use, where there is one.

/// Its `host:port`. Where there is none, the test says so and passes, except under CI, where it fails.
#[expect(clippy::print_stderr, reason = "whoever runs the tests by hand is told what was not tested")]
pub(crate) fn real() -> Option<String> {
    if let Ok(servers) = std::env::var("TIDEMILL_TEST_KAFKA") {
        return Some(servers);
    }
    assert!(std::env::var_os("CI").is_none(), "under CI TIDEMILL_TEST_KAFKA must name a broker");
    eprintln!("skipped: TIDEMILL_TEST_KAFKA=host:port names no broker");
    None
}
