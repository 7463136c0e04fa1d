//! What tells one output from another: a hash of everything that a sink would write, in order.
//!
//! It deliberately is no checksum of bytes on a wire or a disk. Two attempts at a batch with the same digest have the
//! same output, so that a marker which names the digest tells which of them was published.

use std::fmt;
use std::str::FromStr;

use super::encode::ByteRows;
use crate::error::{Error, Result};

/// The digest of an output.
///
/// ```
/// use tidemill::sink::digest::Digest;
/// let digest = Digest::of(b"output");
/// assert_eq!(digest.to_string().parse::<Digest>()?, digest);
/// assert_ne!(digest, Digest::of(b"Output"));
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    /// As 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_lower_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let hash = is_lower_hex.then(|| blake3::Hash::from_hex(text).ok()).flatten();
        hash.map(|hash| Self(*hash.as_bytes())).ok_or_else(|| {
            Error::sink(format!("a digest is 64 hexadecimal digits in lower case, found {text:?}"))
        })
    }
}

/// Takes an output up, piece by piece. Every piece says its length first, so that no two outputs look alike.
#[derive(Debug)]
pub(crate) struct Digester(blake3::Hasher);

/// So many numbers are taken up at once: the hash is quick on long pieces only.
const NUMBERS: usize = 1_024;

impl Digester {
    /// A digest of a thing called `what`.
    pub(crate) fn new(what: &str) -> Self {
        let mut digester = Self(blake3::Hasher::new());
        digester.text(what);
        digester
    }

    /// Takes up a number.
    pub(crate) fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    /// Takes up a byte string.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    /// Takes up a text.
    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Takes up how many numbers there are, and each of them.
    pub(crate) fn numbers(&mut self, numbers: impl ExactSizeIterator<Item = u64>) {
        self.number(numbers.len() as u64);
        let mut piece = Vec::with_capacity(NUMBERS * size_of::<u64>());
        for number in numbers {
            piece.extend_from_slice(&number.to_le_bytes());
            if piece.len() == NUMBERS * size_of::<u64>() {
                self.0.update(&piece);
                piece.clear();
            }
        }
        self.0.update(&piece);
    }

    /// Takes up byte strings, each null or not.
    pub(crate) fn rows(&mut self, rows: &ByteRows) {
        self.numbers(rows.marks());
        self.bytes(rows.as_bytes());
    }

    /// The digest of all that was taken up.
    pub(crate) fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Digester};

    #[test]
    fn pieces_that_are_cut_elsewhere_give_another_digest() {
        let of = |pieces: &[&str]| {
            let mut digester = Digester::new("test");
            for piece in pieces {
                digester.text(piece);
            }
            digester.finish()
        };
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab", "c"]), of(&["ab", "c", ""]));
    }

    #[test]
    fn many_numbers_are_all_taken_up() {
        let of = |numbers: Vec<u64>| {
            let mut digester = Digester::new("test");
            digester.numbers(numbers.into_iter());
            digester.finish()
        };
        let numbers: Vec<u64> = (0..3_000).collect();
        for changed in [0, 1_023, 1_024, 2_999] {
            let mut other = numbers.clone();
            other[changed] += 1;
            assert_ne!(of(other), of(numbers.clone()), "{changed}");
        }
    }

    #[test]
    fn a_digest_has_one_way_to_be_written() {
        let text = Digest::of(b"a").to_string();
        for wrong in [text.to_uppercase(), text[1..].to_owned(), format!("{text}0"), String::new()] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }
}
