//! Steps over one value of any kind, checking its syntax and building nothing.
//!
//! It deliberately does not recurse: what is open is kept in the bits of one integer, so that no nesting, however
//! deep, can exhaust the stack.

#![expect(
    clippy::inline_always,
    reason = "keeps the cursor in registers: storing and reloading it is most of what a step costs"
)]

use crate::decode::bad::Expected;
use crate::decode::json::cursor::Cursor;
use crate::decode::json::number;

/// How deep objects and arrays may nest, the record's own object included.
pub(super) const MAX_DEPTH: u32 = 128;

/// Steps over the value that starts here, and whitespace before it.
#[inline(always)]
pub(super) fn value(input: &mut Cursor<'_>) -> Result<(), Expected> {
    match input.peek() {
        Some(b'"') => input.string().map(|_| ()),
        Some(b'-' | b'0'..=b'9') => number::walk(input),
        _ => input.lend(|input| nested(input, 0)),
    }
}

/// As [`value`], of a value that stands in `above` objects and arrays which are read, the record's own aside.
pub(super) fn below(input: &mut Cursor<'_>, above: u32) -> Result<(), Expected> {
    nested(input, above)
}

fn scalar(input: &mut Cursor<'_>) -> Result<(), Expected> {
    match input.peek() {
        Some(b'"') => input.string().map(|_| ()),
        Some(b'-' | b'0'..=b'9') => number::walk(input),
        Some(b't') => input.literal("true"),
        Some(b'f') => input.literal("false"),
        Some(b'n') => input.literal("null"),
        _ => Err(Expected("a value")),
    }
}

/// Steps over an object's key, its colon, and the whitespace around it.
#[inline]
fn key(input: &mut Cursor<'_>) -> Result<(), Expected> {
    input.string()?;
    input.whitespace();
    input.expect(b':', "a colon after a key")?;
    input.whitespace();
    Ok(())
}

#[inline(never)]
fn nested(input: &mut Cursor<'_>, above: u32) -> Result<(), Expected> {
    let mut open = Open { above, ..Open::default() };
    input.whitespace();
    loop {
        let opened = match input.peek() {
            Some(b'{') => open.enter(Kind::Object, input)?,
            Some(b'[') => open.enter(Kind::Array, input)?,
            _ => {
                scalar(input)?;
                Next::Ended
            }
        };
        if opened == Next::Ended && open.leave(input)? == Next::Ended {
            return Ok(());
        }
    }
}

/// What stands at the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The start of a value.
    Value,
    /// The end of one.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Array,
    Object,
}

/// The objects and arrays that are open: one bit each, the innermost lowest.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    objects: u128,
    depth: u32,
    /// How many are open around the value that is walked.
    above: u32,
}

impl Open {
    /// Steps into an object or array, up to its first value; or over it where it is empty.
    fn enter(&mut self, kind: Kind, input: &mut Cursor<'_>) -> Result<Next, Expected> {
        // The record's own object is one level, and is not in here.
        if self.above + self.depth + 1 >= MAX_DEPTH {
            return Err(Expected("at most 128 levels of objects and arrays"));
        }
        input.skip(1);
        input.whitespace();
        match kind {
            Kind::Object if input.eat(b'}') => return Ok(Next::Ended),
            Kind::Array if input.eat(b']') => return Ok(Next::Ended),
            Kind::Object => key(input)?,
            Kind::Array => {}
        }
        self.objects = (self.objects << 1) | u128::from(kind == Kind::Object);
        self.depth += 1;
        Ok(Next::Value)
    }

    /// Steps from the end of a value to the start of the next, closing what ends between.
    fn leave(&mut self, input: &mut Cursor<'_>) -> Result<Next, Expected> {
        while self.depth > 0 {
            input.whitespace();
            let object = self.objects & 1 == 1;
            if input.eat(b',') {
                input.whitespace();
                if object {
                    key(input)?;
                }
                return Ok(Next::Value);
            }
            if object {
                input.expect(b'}', "a comma or the closing brace of an object")?;
            } else {
                input.expect(b']', "a comma or the closing bracket of an array")?;
            }
            self.objects >>= 1;
            self.depth -= 1;
        }
        Ok(Next::Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walks(text: &str) -> bool {
        let mut input = Cursor::new(text.as_bytes());
        value(&mut input).is_ok() && input.at() == text.len()
    }

    #[test]
    fn every_kind_of_value_is_walked() {
        for text in ["{}", "[]", "[ ]", "[[],{}]", r#"{"a":[1,{"b":null}],"c":"d"}"#, "[true,false,-1.5e3]"] {
            assert!(walks(text), "{text}");
        }
    }

    #[test]
    fn what_does_not_match_is_refused() {
        for text in
            ["[", "{", "[}", "{]", "[1,]", "{\"a\":1,}", "{\"a\"}", "{1:2}", "[1 2]", "[nul]", "[[1}]"]
        {
            assert!(!walks(text), "{text}");
        }
    }

    #[test]
    fn nesting_ends_at_its_limit() {
        let nest = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(walks(&nest(MAX_DEPTH as usize - 1)));
        assert!(!walks(&nest(MAX_DEPTH as usize)));
        assert!(!walks(&"{\"a\":".repeat(1_000_000)));
    }
}
