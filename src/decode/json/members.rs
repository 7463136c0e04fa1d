//! The members of a record that somebody wants to show: names, and values as they are written.
//!
//! It deliberately reads no values and is not fast: it looks at single records, to say what is wrong with them.

use crate::decode::json::cursor::Cursor;
use crate::decode::json::{text, walk};

/// A key and the text of its value.
pub(in crate::decode) type Member<'a> = (String, &'a [u8]);

/// The members of the object that `text` is, up to where it ceases to be one; none where it is something else.
pub(in crate::decode) fn members(text: &[u8]) -> Vec<Member<'_>> {
    let mut input = Cursor::new(text);
    input.whitespace();
    if !input.eat(b'{') {
        return Vec::new();
    }
    let mut members = Vec::new();
    while let Some(member) = member(&mut input) {
        members.push(member);
        input.whitespace();
        if !input.eat(b',') {
            break;
        }
    }
    members
}

fn member<'a>(input: &mut Cursor<'a>) -> Option<Member<'a>> {
    input.whitespace();
    let key = input.string().ok()?;
    input.whitespace();
    input.expect(b':', "").ok()?;
    input.whitespace();
    let start = input.at();
    walk::value(input).ok()?;
    let mut name = Vec::new();
    text::unescape(key.body, &mut name).ok()?;
    Some((String::from_utf8_lossy(&name).into_owned(), input.since(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<(String, &str)> {
        let members = members(text.as_bytes()).into_iter();
        members.map(|(name, value)| (name, std::str::from_utf8(value).unwrap())).collect()
    }

    #[test]
    fn names_and_values_are_those_of_the_record() {
        let record = " { \"a\" : 1.50 ,\"b\\u0062\":{\"c\":[1, 2]},\"d\":null}";
        let expected = [("a", "1.50"), ("bb", "{\"c\":[1, 2]}"), ("d", "null")];
        assert_eq!(shown(record), expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn what_is_no_object_has_no_members_and_a_broken_one_those_before_the_break() {
        for text in ["", "[1]", "{}", "{1:2}", "\"a\""] {
            assert!(shown(text).is_empty(), "{text}");
        }
        assert_eq!(shown("{\"a\":1,\"b\":").len(), 1);
    }
}
