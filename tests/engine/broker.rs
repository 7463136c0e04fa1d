//! The real broker that tests may use, where there is one.
//!
//! It deliberately starts none: `python -m tests` does, and names it.

use std::io::Write;
use std::thread;

/// Its `host:port`. Where there is none, the test says that it did not run and passes, except under CI, where it fails.
///
/// A test cannot ask to be reported as ignored once it runs, and one that is always ignored is forgotten where there is
/// a broker. So it says so on the process's own stderr, which the harness does not hide as it hides what a test that
/// passes prints; whoever counts takes the line for a skipped test.
pub(crate) fn real() -> Option<String> {
    if let Ok(servers) = std::env::var("TIDEMILL_TEST_KAFKA") {
        return Some(servers);
    }
    assert!(std::env::var_os("CI").is_none(), "under CI TIDEMILL_TEST_KAFKA must name a broker");
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED {test}: TIDEMILL_TEST_KAFKA=host:port names no broker\n");
    let _ = std::io::stderr().write_all(line.as_bytes()); // in one piece: tests run side by side
    None
}
