//! Numbers and texts to bytes and back: the form of what containers hold.
//!
//! It deliberately verifies nothing but lengths. A container's hash has been checked before anything is read here; yet what
//! is read here never panics, and never asks for more memory than it was given bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::entry::Position;
use crate::checkpoint::id::{ChunkHash, Epoch, Incarnation, Index};

/// What can be written and read again.
pub(super) trait Coded: Sized {
    fn put_into(&self, out: &mut BytesMut);

    /// None where the bytes end too early, or say what nothing says.
    fn take_from(from: &mut Bytes) -> Option<Self>;
}

/// The whole of `bytes` as one `T`; none where something is left over.
pub(super) fn decode<T: Coded>(mut bytes: Bytes) -> Option<T> {
    let value = T::take_from(&mut bytes)?;
    bytes.is_empty().then_some(value)
}

pub(super) fn encode(value: &impl Coded) -> Bytes {
    let mut out = BytesMut::new();
    value.put_into(&mut out);
    out.freeze()
}

macro_rules! numbers {
    ($($number:ty: $put:ident, $get:ident;)*) => {$(
        impl Coded for $number {
            fn put_into(&self, out: &mut BytesMut) {
                out.$put(*self);
            }

            fn take_from(from: &mut Bytes) -> Option<Self> {
                from.$get().ok()
            }
        }
    )*};
}

numbers! {
    u8: put_u8, try_get_u8;
    u16: put_u16_le, try_get_u16_le;
    u32: put_u32_le, try_get_u32_le;
    u64: put_u64_le, try_get_u64_le;
    u128: put_u128_le, try_get_u128_le;
}

macro_rules! wrapped {
    ($($name:ident),*) => {$(
        impl Coded for $name {
            fn put_into(&self, out: &mut BytesMut) {
                self.0.put_into(out);
            }

            fn take_from(from: &mut Bytes) -> Option<Self> {
                Coded::take_from(from).map(Self)
            }
        }
    )*};
}

wrapped!(Epoch, Index, Incarnation);

impl Coded for Bytes {
    fn put_into(&self, out: &mut BytesMut) {
        (self.len() as u64).put_into(out);
        out.put_slice(self);
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        let length = usize::try_from(u64::take_from(from)?).ok()?;
        (length <= from.len()).then(|| from.split_to(length))
    }
}

impl Coded for String {
    fn put_into(&self, out: &mut BytesMut) {
        Bytes::copy_from_slice(self.as_bytes()).put_into(out);
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        Self::from_utf8(Bytes::take_from(from)?.into()).ok()
    }
}

impl<T: Coded> Coded for Option<T> {
    fn put_into(&self, out: &mut BytesMut) {
        u8::from(self.is_some()).put_into(out);
        if let Some(value) = self {
            value.put_into(out);
        }
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        match u8::take_from(from)? {
            0 => Some(None),
            1 => T::take_from(from).map(Some),
            _ => None,
        }
    }
}

impl<T: Coded> Coded for Vec<T> {
    fn put_into(&self, out: &mut BytesMut) {
        (self.len() as u64).put_into(out);
        for value in self {
            value.put_into(out);
        }
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        let count = u64::take_from(from)?;
        let mut values = Self::new(); // grows with what is really there, whatever the count says
        for _ in 0..count {
            values.push(T::take_from(from)?);
        }
        Some(values)
    }
}

impl Coded for Position {
    fn put_into(&self, out: &mut BytesMut) {
        self.epoch.put_into(out);
        self.index.put_into(out);
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        Some(Self { epoch: Epoch::take_from(from)?, index: Index::take_from(from)? })
    }
}

impl Coded for ChunkRef {
    fn put_into(&self, out: &mut BytesMut) {
        self.epoch.put_into(out);
        out.put_slice(&self.hash.0);
        self.length.put_into(out);
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        let epoch = Epoch::take_from(from)?;
        let mut hash = [0; 32];
        from.try_copy_to_slice(&mut hash).ok()?;
        Some(Self { epoch, hash: ChunkHash(hash), length: u64::take_from(from)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let written: Vec<Option<Position>> =
            vec![None, Some(Position { epoch: Epoch(3), index: Index(u64::MAX) })];
        assert_eq!(decode::<Vec<Option<Position>>>(encode(&written)), Some(written));
        let text = "Pa\u{e9}stum".to_owned();
        assert_eq!(decode::<String>(encode(&text)), Some(text));
    }

    #[test]
    fn lengths_that_lie_are_found() {
        let lies = encode(&u64::MAX);
        assert_eq!(decode::<Bytes>(lies.clone()), None);
        assert_eq!(decode::<Vec<u64>>(lies.clone()), None);
        assert_eq!(decode::<u32>(lies), None, "bytes that are left over");
    }
}
