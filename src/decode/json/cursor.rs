//! A place in the bytes of one record, and the smallest steps from there.
//!
//! It deliberately knows tokens only: what a value means is the business of the files beside it. Every step checks
//! its bounds, so no input can make it panic; eight bytes are looked at together wherever eight are left.

#![expect(
    clippy::inline_always,
    reason = "keeps the cursor in registers: storing and reloading it is most of what a step costs"
)]

use crate::decode::bad::Expected;

/// One byte in each of the eight of a word.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The top bit of each byte of a word.
const TOPS: u64 = 0x8080_8080_8080_8080;

/// The body of a string between its quotes, and whether anything in it is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawString<'a> {
    pub(super) body: &'a [u8],
    pub(super) escapes: Escapes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escapes {
    None,
    Some,
}

/// Small and copied freely: a hot loop works on a copy of its own, which the compiler keeps in registers, and hands
/// another to whatever is not inlined ([`Cursor::lend`]). It holds what is left, not how far it is: looking at eight
/// bytes and stepping over some of them is then one comparison, where an index takes three.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, rest: bytes }
    }

    /// The byte that comes next is this one, counted from 0.
    #[inline]
    pub(super) fn at(&self) -> usize {
        self.bytes.len() - self.rest.len()
    }

    /// Calls `step` with a copy of the cursor, so that this one need not have an address.
    #[inline]
    pub(super) fn lend<T>(&mut self, step: impl FnOnce(&mut Self) -> T) -> T {
        let mut lent = *self;
        let result = step(&mut lent);
        *self = lent;
        result
    }

    #[inline]
    pub(super) fn move_to(&mut self, at: usize) {
        self.rest = self.bytes.get(at..).unwrap_or_default();
    }

    #[inline]
    pub(super) fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// All bytes that are left.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The bytes from `start` up to here.
    #[inline]
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at()).unwrap_or_default()
    }

    /// The next eight bytes, the first of them lowest.
    #[inline]
    pub(super) fn eight(&self) -> Option<u64> {
        self.rest.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    #[inline]
    pub(super) fn whitespace(&mut self) {
        // Compact records have none at all: one comparison settles it.
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// Steps over `byte`, if it comes next.
    #[inline]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Expected> {
        if self.eat(byte) { Ok(()) } else { Err(Expected(expected)) }
    }

    /// Steps over `true`, `false` or `null`.
    #[inline]
    pub(super) fn literal(&mut self, word: &'static str) -> Result<(), Expected> {
        self.rest = self.rest.strip_prefix(word.as_bytes()).ok_or(Expected(word))?;
        Ok(())
    }

    /// Steps over a string, and checks it: no control character, no unknown escape.
    #[inline(always)]
    pub(super) fn string(&mut self) -> Result<RawString<'a>, Expected> {
        if let [b'"', inside @ ..] = self.rest
            && let Some((body, [b'"', rest @ ..])) = inside.split_at_checked(plain_characters(inside))
        {
            self.rest = rest;
            return Ok(RawString { body, escapes: Escapes::None });
        }
        self.lend(Self::unusual_string)
    }

    /// Steps over a string that has escapes, or is none.
    #[inline(never)]
    fn unusual_string(&mut self) -> Result<RawString<'a>, Expected> {
        self.expect(b'"', "a string")?;
        let start = self.rest;
        loop {
            self.skip(plain_characters(self.rest));
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(Expected("a control character in a string to be escaped")),
                None => return Err(Expected("the closing quote of a string")),
            }
        }
        let body = start.get(..start.len() - self.rest.len()).unwrap_or_default();
        self.skip(1);
        Ok(RawString { body, escapes: Escapes::Some })
    }

    fn escape(&mut self) -> Result<(), Expected> {
        const UNKNOWN: Expected = Expected("one of the escapes \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX");
        match self.rest {
            [_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => self.skip(2),
            [_, b'u', digits @ ..] => {
                let four = digits.first_chunk::<4>().ok_or(UNKNOWN)?;
                if !four.iter().all(u8::is_ascii_hexdigit) {
                    return Err(UNKNOWN);
                }
                self.skip(6);
            }
            _ => return Err(UNKNOWN),
        }
        Ok(())
    }
}

/// How many of the first bytes are characters of a string that stand for themselves.
#[inline(always)]
fn plain_characters(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((eight, behind)) = rest.split_first_chunk() {
        match special(u64::from_le_bytes(*eight)) {
            0 => rest = behind,
            marks => return bytes.len() - rest.len() + marks.trailing_zeros() as usize / 8,
        }
    }
    let plain = |byte: &&u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
    bytes.len() - rest.len() + rest.iter().take_while(plain).count()
}

/// Marks, by its top bit, the first byte of `word` that ends a run of plain characters: a quote, a backslash or a
/// control character. Marks above the first may be false (a borrow runs through them), the first never is. With its
/// second bit turned over a quote comes right behind the control characters, which stay among themselves: one
/// subtraction finds both (Daniel Lemire, "Quickly checking whether a string needs escaping").
#[inline(always)]
fn special(word: u64) -> u64 {
    let quote_or_control = (word ^ (ONES * 2)).wrapping_sub(ONES * (0x20 + 1));
    let backslash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
    (quote_or_control | backslash) & !word & TOPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_characters_end_at_the_first_that_is_none() {
        for (byte, filler) in (0..=u8::MAX).flat_map(|byte| [0x21, 0x23, 0x80, 0xff].map(|fill| (byte, fill)))
        {
            for (place, len) in (0..20).flat_map(|place| (place + 1..=20).map(move |len| (place, len))) {
                let mut text = vec![filler; len];
                text[place] = byte;
                let ends = matches!(byte, b'"' | b'\\' | 0..0x20);
                assert_eq!(plain_characters(&text), if ends { place } else { len }, "{text:?}");
            }
        }
    }

    #[test]
    fn a_string_ends_at_the_quote_that_is_not_escaped() {
        for (text, body, escapes) in [
            (r#""plain, of more than eight", "#, "plain, of more than eight", Escapes::None),
            (r#""",""#, "", Escapes::None),
            (r#""a \" quoted one \\","x""#, r#"a \" quoted one \\"#, Escapes::Some),
        ] {
            let string = Cursor::new(text.as_bytes()).string().unwrap();
            assert_eq!(string, RawString { body: body.as_bytes(), escapes });
        }
    }
}
