//! One line of CSV, field by field, as RFC 4180 has it.
//!
//! A field is bare or quoted from its first byte to its last; a quote inside a quoted one is doubled, and a bare one
//! holds neither quotes nor line breaks. It deliberately knows no column: what a field means is told elsewhere.

use memchr::{memchr, memchr3};

use crate::csv::Dialect;
use crate::decode::bad::Expected;

/// How a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Bare,
    /// Between quotes, and none inside.
    Quoted,
    /// Between quotes, with doubled ones inside.
    Doubled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) text: &'a [u8],
    /// What starts with `text` and goes on behind it.
    pub(super) rest: &'a [u8],
    pub(super) form: Form,
    /// The byte of the payload where it starts, its quote included.
    pub(super) at: usize,
}

/// Where the next field is, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Field,
    Ended,
}

/// The lines of a payload, read one after the other.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
    next: Next,
    delimiter: u8,
    quote: u8,
    /// Nothing in `rest` but delimiters has a meaning: most records are so, and one look at them all settles it.
    plain: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(bytes: &'a [u8], dialect: &Dialect) -> Self {
        let mut lines = Self {
            bytes,
            rest: bytes,
            next: Next::Field,
            delimiter: dialect.delimiter(),
            quote: dialect.quote(),
            plain: false,
        };
        lines.begin(0);
        lines
    }

    /// Goes on at the byte `at`, where a line starts.
    pub(super) fn begin(&mut self, at: usize) {
        self.rest = self.bytes.get(at..).unwrap_or_default();
        self.next = Next::Field;
        self.plain = memchr3(self.quote, b'\n', b'\r', self.rest).is_none();
    }

    /// The byte that comes next is this one, counted from 0.
    pub(super) fn at(&self) -> usize {
        self.bytes.len() - self.rest.len()
    }

    /// The next field of this line; none behind its last, where [`Lines::at`] is where the next line starts.
    #[inline]
    pub(super) fn field(&mut self) -> Result<Option<Field<'a>>, Expected> {
        if self.next == Next::Ended {
            return Ok(None);
        }
        if !self.plain {
            return self.any_field().map(Some);
        }
        let (at, rest) = (self.at(), self.rest);
        let (text, behind) = rest.split_at_checked(until(self.delimiter, rest)).unwrap_or((rest, &[]));
        self.rest = behind.get(1..).unwrap_or_default();
        if behind.is_empty() {
            self.next = Next::Ended;
        }
        Ok(Some(Field { text, rest, form: Form::Bare, at }))
    }

    #[inline(never)]
    fn any_field(&mut self) -> Result<Field<'a>, Expected> {
        let at = self.at();
        let field = match self.rest {
            [first, inside @ ..] if *first == self.quote => self.quoted(at, inside)?,
            bare => self.bare(at, bare),
        };
        self.separator(field.form)?;
        Ok(field)
    }

    fn bare(&mut self, at: usize, rest: &'a [u8]) -> Field<'a> {
        let ends = |byte: &u8| [self.delimiter, self.quote, b'\n', b'\r'].contains(byte);
        let len = rest.iter().position(ends).unwrap_or(rest.len());
        let (text, behind) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        self.rest = behind;
        Field { text, rest, form: Form::Bare, at }
    }

    /// The field whose text starts at `inside`, behind its quote.
    fn quoted(&mut self, at: usize, inside: &'a [u8]) -> Result<Field<'a>, Expected> {
        let (mut form, mut behind) = (Form::Quoted, inside);
        loop {
            let Some(quote) = memchr(self.quote, behind) else {
                self.rest = &[];
                return Err(Expected("the closing quote of a field"));
            };
            behind = behind.get(quote + 1..).unwrap_or_default();
            match behind {
                [second, more @ ..] if *second == self.quote => (form, behind) = (Form::Doubled, more),
                _ => break,
            }
        }
        let text = inside.get(..inside.len() - behind.len() - 1).unwrap_or_default();
        self.rest = behind;
        Ok(Field { text, rest: inside, form, at })
    }

    /// Steps over what stands behind a field of this form.
    fn separator(&mut self, form: Form) -> Result<(), Expected> {
        match self.rest {
            [first, rest @ ..] if *first == self.delimiter => self.rest = rest,
            [] | [b'\n'] | [b'\r', b'\n'] => (self.rest, self.next) = (&[], Next::Ended),
            [b'\n', rest @ ..] | [b'\r', b'\n', rest @ ..] => (self.rest, self.next) = (rest, Next::Ended),
            _ if form == Form::Bare => {
                return Err(Expected("quotes around a field with a quote or carriage return"));
            }
            _ => return Err(Expected("a delimiter or the end behind a closing quote")),
        }
        Ok(())
    }
}

/// How many bytes of `text` stand before the first `byte`: eight are looked at together wherever eight are left.
#[inline]
fn until(byte: u8, text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let pattern = u64::from(byte) * ONES;
    let (words, tail) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let differs = u64::from_le_bytes(*word) ^ pattern;
        // Marks every byte that is zero, and above the lowest of them perhaps others.
        let marks = differs.wrapping_sub(ONES) & !differs & TOPS;
        if marks != 0 {
            return index * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    words.len() * 8 + tail.iter().position(|other| *other == byte).unwrap_or(tail.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csv::Header;

    fn fields(text: &str) -> Result<Vec<(String, Form)>, (usize, &'static str)> {
        let mut lines = Lines::new(text.as_bytes(), &Dialect::default());
        let mut fields = Vec::new();
        loop {
            match lines.field() {
                Ok(Some(field)) => fields.push((String::from_utf8(field.text.to_vec()).unwrap(), field.form)),
                Ok(None) => return Ok(fields),
                Err(expected) => return Err((lines.at(), expected.0)),
            }
        }
    }

    #[test]
    fn fields_are_split_as_rfc_4180_has_it() {
        use Form::{Bare, Doubled, Quoted};
        let cases: [(&str, &[(&str, Form)]); 8] = [
            ("", &[("", Bare)]),
            ("a,b", &[("a", Bare), ("b", Bare)]),
            (",", &[("", Bare), ("", Bare)]),
            ("a long field of text,\n", &[("a long field of text", Bare), ("", Bare)]),
            ("\"a,b\",c\r\n", &[("a,b", Quoted), ("c", Bare)]),
            ("\"\",\"\"", &[("", Quoted), ("", Quoted)]),
            ("\"a\"\"b\",\"\"\"\"", &[("a\"\"b", Doubled), ("\"\"", Doubled)]),
            ("\"a\r\nb\",é", &[("a\r\nb", Quoted), ("é", Bare)]),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|(text, form)| ((*text).to_owned(), *form)).collect();
            assert_eq!(fields(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_rfc_4180_does_not_have_is_refused_where_it_stands() {
        assert_eq!(fields("a,\"b"), Err((4, "the closing quote of a field")));
        assert_eq!(fields("a,\"b\"\"").unwrap_err().0, 6);
        assert_eq!(fields("\"a\"b,c"), Err((3, "a delimiter or the end behind a closing quote")));
        assert_eq!(fields("a\"b").unwrap_err().0, 1);
        assert_eq!(fields("a\rb").unwrap_err().0, 1);
    }

    #[test]
    fn another_line_begins_where_the_first_ends() {
        let dialect = Dialect::new(";", "'", Header::Absent, "").unwrap();
        let mut lines = Lines::new(b"a;b\r\n'c\n';d", &dialect);
        while lines.field().unwrap().is_some() {}
        assert_eq!(lines.at(), 5);
        lines.begin(5);
        assert_eq!(lines.field().unwrap().unwrap().text, b"c\n");
        assert_eq!(
            lines.field().unwrap().unwrap(),
            Field { text: b"d", rest: b"d", form: Form::Bare, at: 10 }
        );
        assert_eq!(lines.field(), Ok(None));
    }

    #[test]
    fn a_byte_is_found_wherever_it_stands() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..10_000 {
            let text: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(b'*'..b'/')).collect();
            let expected = text.iter().position(|byte| *byte == b',').unwrap_or(text.len());
            assert_eq!(until(b',', &text), expected, "{}", text.escape_ascii());
        }
    }
}
