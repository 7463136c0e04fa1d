//! Plain values as bytes and back: how what outlives the process is written down, and read without belief.
//!
//! Numbers are little-endian, a length stands before what it counts, and nothing is optional. It deliberately knows no
//! version and no meaning: whoever has a form says which it is, and reads it to its last byte. Nothing is allocated by a
//! length that the bytes at hand do not hold.

use crate::error::{Error, ErrorKind, Result};

/// Puts values one after another.
///
/// ```
/// use tidemill::wire::{Reader, Writer};
///
/// let mut writer = Writer::default();
/// writer.u16(1);
/// writer.text("pump-1");
/// let bytes = writer.into_bytes();
/// let mut reader = Reader::new("a greeting", &bytes);
/// assert_eq!((reader.u16()?, reader.text()?), (1, "pump-1"));
/// reader.end()?;
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Writer(Vec<u8>);

macro_rules! numbers {
    ($($number:ident),*) => {
        impl Writer {
            $(
                #[doc = concat!("Appends a number: [`Reader::", stringify!($number), "`] reads it.")]
                pub fn $number(&mut self, value: $number) {
                    self.0.extend_from_slice(&value.to_le_bytes());
                }
            )*
        }

        impl Reader<'_> {
            $(
                #[doc = concat!("The number that [`Writer::", stringify!($number), "`] wrote.")]
                pub fn $number(&mut self) -> Result<$number> {
                    Ok($number::from_le_bytes(self.array()?))
                }
            )*
        }
    };
}

numbers!(u8, i8, u16, u32, i32, u64, i64);

impl Writer {
    /// Appends how many of something follow. More than 2^32 − 1 of anything are written nowhere: a reader that is told of
    /// so many finds the bytes short.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Appends bytes with their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Appends a text with its length.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Appends bytes whose number the reader knows.
    pub fn plain(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Appends whether there is a value, and the value if there is.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// What has been written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What has been written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Takes values off the front of some bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    what: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which errors call `what`.
    pub fn new(what: &'a str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    /// The next `length` bytes.
    pub fn plain(&mut self, length: usize) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest
            .get(..length)
            .ok_or_else(|| self.wrong(format!("{length} bytes more were expected, found {}", rest.len())))?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.plain(N)?;
        taken.try_into().map_err(|_| Error::internal("a slice has another length than it was cut to"))
    }

    /// How many of something follow, each of which takes at least `least` bytes: never more than there are bytes for.
    pub fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.u32()? as usize;
        let left = self.bytes.len().saturating_sub(self.at);
        if count.saturating_mul(least.max(1)) > left {
            return Err(self.wrong(format!(
                "{count} entries of {least} bytes or more were expected, found {left} bytes"
            )));
        }
        Ok(count)
    }

    /// What [`Writer::bytes`] wrote.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.count(1)?;
        self.plain(length)
    }

    /// What [`Writer::text`] wrote.
    pub fn text(&mut self) -> Result<&'a str> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes)
            .map_err(|error| self.wrong("text was expected, found bytes").caused_by(error))
    }

    /// What [`Writer::option`] wrote.
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            other => Err(self.wrong(format!("0 or 1 was expected, found {other}"))),
        }
    }

    /// That nothing is left.
    pub fn end(self) -> Result<()> {
        match self.bytes.len().saturating_sub(self.at) {
            0 => Ok(()),
            left => Err(self.wrong(format!("the end was expected, found {left} bytes more"))),
        }
    }

    /// How many bytes have been taken.
    pub fn position(&self) -> usize {
        self.at
    }

    /// An error of kind [`ErrorKind::Checkpoint`] that says where in the bytes it is.
    pub fn wrong(&self, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Checkpoint, message).at(format!("byte {} of {}", self.at, self.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(7);
        writer.i64(-3);
        writer.text("größe");
        writer.option(Some(9), Writer::u32);
        writer.option(None, Writer::u32);
        writer.bytes(&[1, 2, 3]);
        writer.into_bytes()
    }

    type Values = (u8, i64, String, Option<u32>, Option<u32>, Vec<u8>);

    fn read(bytes: &[u8]) -> Result<Values> {
        let mut reader = Reader::new("a test", bytes);
        let values = (
            reader.u8()?,
            reader.i64()?,
            reader.text()?.to_owned(),
            reader.option(Reader::u32)?,
            reader.option(Reader::u32)?,
            reader.bytes()?.to_vec(),
        );
        reader.end()?;
        Ok(values)
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&written()).unwrap(), (7, -3, "größe".to_owned(), Some(9), None, vec![1, 2, 3]));
    }

    #[test]
    fn bytes_that_are_too_few_or_too_many_are_refused_with_their_place() {
        let bytes = written();
        for length in 0..bytes.len() {
            let error = read(&bytes[..length]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Checkpoint, "{error}");
        }
        let error = read(&[bytes.as_slice(), &[0]].concat()).unwrap_err();
        assert_eq!(error.to_string(), "the end was expected, found 1 bytes more (byte 33 of a test)");
    }

    #[test]
    fn no_length_is_believed_that_the_bytes_do_not_hold() {
        let mut reader = Reader::new("a test", &[255, 255, 255, 255, 1]);
        let error = reader.count(8).unwrap_err();
        assert!(
            error.to_string().starts_with("4294967295 entries of 8 bytes or more were expected, found 1"),
            "{error}"
        );
        let mut reader = Reader::new("a test", &[2, 0, 0, 0, 0xff, 0xfe]);
        assert!(reader.text().unwrap_err().to_string().starts_with("text was expected"));
    }
}
