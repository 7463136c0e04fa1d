//! How CSV is spelled: what delimits fields, what quotes them, what stands for null, and whether names come first.
//!
//! Whoever reads and whoever writes CSV goes by it; it deliberately does neither.

use crate::error::{Error, Result};

/// A spelling of CSV (RFC 4180), checked when it is made.
///
/// ```
/// use tidemill::csv::{Dialect, Header};
/// let dialect = Dialect::new(";", "'", Header::Absent, "NULL")?;
/// assert_eq!((dialect.delimiter(), dialect.quote(), dialect.null()), (b';', b'\'', "NULL"));
/// assert!(Dialect::new("0", "'", Header::Absent, "").is_err());
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    delimiter: u8,
    quote: u8,
    header: Header,
    null: String,
}

/// Whether a line of names stands before a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Header {
    /// Fields are told by their place.
    #[default]
    Absent,
    /// Fields are told by the names in the line before.
    Present,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { delimiter: b',', quote: b'"', header: Header::Absent, null: String::new() }
    }
}

impl Dialect {
    /// A spelling. Neither mark may be part of a number or a line break, which keeps where a number ends a matter of
    /// its own bytes.
    pub fn new(delimiter: &str, quote: &str, header: Header, null: &str) -> Result<Self> {
        let (delimiter, quote) = (mark("delimiter", delimiter)?, mark("quote", quote)?);
        if delimiter == quote {
            let found = char::from(quote);
            return Err(Error::config(format!(
                "Csv needs a delimiter and a quote that differ, found {found:?} twice"
            )));
        }
        if null.bytes().any(|byte| [delimiter, quote, b'\r', b'\n'].contains(&byte)) {
            return Err(Error::config(format!(
                "Csv's null is text without delimiter, quote and line break, found {null:?}"
            )));
        }
        Ok(Self { delimiter, quote, header, null: null.to_owned() })
    }

    /// The same, with or without a line of names.
    #[must_use]
    pub fn with_header(self, header: Header) -> Self {
        Self { header, ..self }
    }

    /// What stands between two fields.
    pub fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// What stands around a field that holds a delimiter, a quote or a line break; twice, it is a quote inside one.
    pub fn quote(&self) -> u8 {
        self.quote
    }

    /// Whether a line of names stands before a record.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The field that stands for null where it is not quoted.
    pub fn null(&self) -> &str {
        &self.null
    }
}

fn mark(what: &str, text: &str) -> Result<u8> {
    match text.as_bytes() {
        [byte] if byte.is_ascii_punctuation() && !b"+-.".contains(byte) => Ok(*byte),
        [byte @ (b' ' | b'\t')] => Ok(*byte),
        _ => Err(Error::config(format!("Csv's {what} is one mark such as \",\" or \"\\t\", found {text:?}"))
            .help("letters, digits, +, - and . are parts of numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_that_could_be_part_of_a_value_or_of_each_other_are_refused() {
        for (delimiter, quote, null) in [
            ("", "\"", ""),
            (",", "", ""),
            (",,", "\"", ""),
            ("é", "\"", ""),
            ("e", "\"", ""),
            ("-", "\"", ""),
        ] {
            let refused = Dialect::new(delimiter, quote, Header::Absent, null).unwrap_err();
            assert!(refused.message().contains("is one mark"), "{refused}");
        }
        let same = Dialect::new(",", ",", Header::Absent, "").unwrap_err();
        assert!(same.message().contains("that differ"), "{same}");
        let null = Dialect::new(",", "\"", Header::Absent, "a,b").unwrap_err();
        assert!(null.message().contains("null"), "{null}");
    }
}
