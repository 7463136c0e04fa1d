//! Whether payloads are UTF-8: checked for a whole buffer at once where that settles it.
//!
//! It deliberately says nothing of what the text means.

use arrow::buffer::Buffer;

use crate::decode::bad::Expected;
use crate::raw::Bytes;

/// Whether a payload is known to be UTF-8 before it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Utf8 {
    /// It lies in a buffer that is; only a character at either end may be cut.
    Checked,
    Unchecked,
}

/// Checks all payloads at once, where they fill most of their buffers. A character that spans two payloads passes
/// here: who takes a payload as checked must not accept half a character at its ends.
pub(super) fn check_together(payloads: &Bytes) -> Utf8 {
    let buffers = payloads.buffers();
    let held: usize = buffers.iter().map(Buffer::len).sum();
    let worthwhile = held / 2 <= payloads.value_bytes();
    let valid = || buffers.iter().all(|buffer| simdutf8::basic::from_utf8(buffer).is_ok());
    if worthwhile && valid() { Utf8::Checked } else { Utf8::Unchecked }
}

/// Checks one payload; the byte where it ceases to be UTF-8, and what was expected there.
#[inline(never)]
pub(super) fn check(payload: &[u8]) -> Result<(), (usize, Expected)> {
    match simdutf8::compat::from_utf8(payload) {
        Ok(_) => Ok(()),
        Err(error) => Err((error.valid_up_to(), Expected("valid UTF-8"))),
    }
}

/// Checks a payload of which `known` is known, its ends included: in a buffer that is UTF-8, a payload that starts
/// and ends with a character of one byte is whole, and so are nearly all.
#[inline]
pub(super) fn check_whole(payload: &[u8], known: Utf8) -> Result<(), (usize, Expected)> {
    let whole = match payload {
        [] => true,
        [only] => only.is_ascii(),
        [first, .., last] => first.is_ascii() && last.is_ascii(),
    };
    if whole && known == Utf8::Checked { Ok(()) } else { check(payload) }
}
