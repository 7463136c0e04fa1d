//! The text that a JSON string with escapes stands for.
//!
//! It deliberately handles only strings that [`Cursor::string`](super::cursor::Cursor::string) has checked; one
//! without escapes is its own text and never comes here.

/// A half of a surrogate pair without its other half: it stands for no character, so no text can hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoneSurrogate;

/// Appends the text of `body` to `out`.
pub(super) fn unescape(mut body: &[u8], out: &mut Vec<u8>) -> Result<(), LoneSurrogate> {
    while let Some(backslash) = memchr::memchr(b'\\', body) {
        let (plain, escape) = body.split_at(backslash);
        out.extend_from_slice(plain);
        body = match escape {
            [_, b'u', rest @ ..] => unicode(rest, out)?,
            [_, letter, rest @ ..] => {
                out.push(meaning(*letter));
                rest
            }
            _ => &[],
        };
    }
    out.extend_from_slice(body);
    Ok(())
}

fn meaning(letter: u8) -> u8 {
    match letter {
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        itself => itself,
    }
}

/// Appends the character whose digits `rest` starts with; what follows it.
fn unicode<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], LoneSurrogate> {
    let (high, rest) = unit(rest).ok_or(LoneSurrogate)?;
    let (character, rest) = match char::from_u32(high) {
        Some(character) => (character, rest),
        None => pair(high, rest).ok_or(LoneSurrogate)?,
    };
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(rest)
}

/// The character of the surrogate `high` and the one that must follow it.
fn pair(high: u32, rest: &[u8]) -> Option<(char, &[u8])> {
    let (low, rest) = unit(rest.strip_prefix(b"\\u")?)?;
    let halves = (0xd800..0xdc00).contains(&high) && (0xdc00..0xe000).contains(&low);
    let code = halves.then(|| 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))?;
    Some((char::from_u32(code)?, rest))
}

/// The number of four hexadecimal digits.
fn unit(rest: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = rest.split_first_chunk::<4>()?;
    let value =
        digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))?;
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &str) -> Result<String, LoneSurrogate> {
        let mut out = Vec::new();
        unescape(body.as_bytes(), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_escape_means_its_character() {
        assert_eq!(text(r#"a\"\\\/\b\f\n\r\tz"#).unwrap(), "a\"\\/\u{8}\u{c}\n\r\tz");
        assert_eq!(text(r"\u0041\u00e9\u20AC\ud83d\ude00").unwrap(), "Aé€😀");
    }

    #[test]
    fn half_a_surrogate_pair_is_no_text() {
        for body in [r"\ud800", r"\ud800x", r"\ud800\n", r"\ud800\ud800", r"\udc00", r"\udc00\ud800"] {
            assert_eq!(text(body), Err(LoneSurrogate), "{body}");
        }
    }
}
