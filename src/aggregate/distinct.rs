//! `approx_distinct`: the hashes of few values, a `HyperLogLog` of many, one a slot.
//!
//! Few values are counted exactly, in 8 bytes each where a `HyperLogLog` takes 16 KiB whatever it holds. Either form is a
//! set: what a slot knows, and so each bit of its result, depends neither on the order in which values came nor on their
//! partials. Registers and estimate are those of Ertl (2017, arXiv:1702.01284); the hash is XXH3, which is frozen, so that
//! a state is the same on every machine. It deliberately keeps no value.

use std::f64::consts::LN_2;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, LargeBinaryArray, LargeListArray, PrimitiveArray,
    UInt64Array, downcast_primitive_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, ToByteSlice, UInt64Type};
use xxhash_rust::xxh3::xxh3_64;

use crate::aggregate::column::{allocated, argument, bytes_of, canonical, check, check_slots, each};
use crate::aggregate::sketches::{Sketch, Sketches};
use crate::aggregate::{Accumulator, Call, Function};
use crate::error::{Error, Result};

/// Up to so many different values of a slot are kept as hashes. With twice as many, a slot takes 4 KiB before a
/// `HyperLogLog`'s 16 are worth it, and each new value moves twice as many hashes.
const FEW: usize = 256;

/// So many bits of a hash choose its register: the standard error is 1.04 / sqrt(2^14), 0.8 %.
const INDEX_BITS: u32 = 14;
const REGISTERS: usize = 1 << INDEX_BITS;
/// The most zeros that the other bits of a hash end in.
const MOST_ZEROS: usize = u64::BITS as usize - INDEX_BITS as usize;

pub(super) fn function(call: &Call<'_>) -> Result<Arc<dyn Function>> {
    let takes = "one column of numbers, times, text or bytes";
    let argument = call.only_argument(takes)?;
    if !is_hashable(argument.data_type()) {
        return Err(call.misfit(takes));
    }
    let field = call.result(DataType::UInt64, false);
    Ok(Arc::new(Distinct { field, values: argument.data_type().clone() }))
}

fn is_hashable(data_type: &DataType) -> bool {
    let is_text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8);
    let is_bytes =
        matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_));
    data_type.is_primitive() || data_type == &DataType::Boolean || is_text || is_bytes
}

#[derive(Clone, Debug)]
struct Distinct {
    field: Field,
    values: DataType,
}

impl Function for Distinct {
    fn field(&self) -> Field {
        self.field.clone()
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![
            Field::new("few", DataType::LargeList(item()), false),
            Field::new("registers", DataType::LargeBinary, true),
        ]
    }

    fn form(&self) -> Option<&'static str> {
        Some("hashes 1")
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Distincts { values: self.values.clone(), slots: Sketches::new() }))
    }
}

fn item() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::UInt64, false))
}

/// The hashes of values; null where they are.
fn hashes(values: &ArrayRef) -> Result<UInt64Array> {
    let values = canonical(values);
    let values = values.as_ref();
    downcast_primitive_array! {
        values => Ok(of_fixed(values)),
        DataType::Boolean => hashes(&cast(values, &DataType::UInt8)?),
        _ => {
            let bytes = cast(values, &DataType::LargeBinary)?;
            Ok(bytes.as_binary::<i64>().iter().map(|bytes| bytes.map(xxh3_64)).collect())
        }
    }
}

fn of_fixed<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>) -> UInt64Array {
    let hash = |value: &T::Native| xxh3_64(std::slice::from_ref(value).to_byte_slice());
    let hashes: Vec<u64> = values.values().iter().map(hash).collect();
    UInt64Array::new(hashes.into(), values.nulls().cloned())
}

/// What is known of the values of one slot.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The hashes of at most [`FEW`] values, ascending; none once there are registers.
    few: Vec<u64>,
    many: Option<Registers>,
}

impl Known {
    #[inline]
    fn add(&mut self, hash: u64) {
        if self.many.is_none() {
            match self.few.binary_search(&hash) {
                Ok(_) => return,
                Err(place) if self.few.len() < FEW => return self.few.insert(place, hash),
                Err(_) => {}
            }
        }
        self.registers().add(hash);
    }

    /// The registers, with the few values in them that there were until here.
    fn registers(&mut self) -> &mut Registers {
        let few = std::mem::take(&mut self.few);
        self.many.get_or_insert_with(|| Registers::of(&few))
    }

    fn count(&self) -> u64 {
        self.many.as_ref().map_or(self.few.len() as u64, Registers::estimate)
    }
}

impl Sketch for Known {
    fn heap(&self) -> usize {
        allocated(bytes_of(&self.few)) + if self.many.is_some() { allocated(REGISTERS) } else { 0 }
    }
}

/// A `HyperLogLog`: of the hashes that chose a register, the most zeros that one ended in, and one more.
#[derive(Clone, Debug)]
struct Registers(Box<[u8; REGISTERS]>);

impl Registers {
    fn of(hashes: &[u64]) -> Self {
        let mut registers = Self(Box::new([0; REGISTERS]));
        for hash in hashes {
            registers.add(*hash);
        }
        registers
    }

    #[inline]
    fn add(&mut self, hash: u64) {
        let index = usize::try_from(hash % REGISTERS as u64).unwrap_or_default();
        // The bit above the hash ends the zeros of one that has no other.
        let zeros = (hash >> INDEX_BITS | 1 << MOST_ZEROS).trailing_zeros();
        if let (Some(register), Ok(zeros)) = (self.0.get_mut(index), u8::try_from(zeros)) {
            *register = (*register).max(zeros + 1);
        }
    }

    fn merge(&mut self, others: &[u8]) {
        self.0.iter_mut().zip(others).for_each(|(own, other)| *own = (*own).max(*other));
    }

    /// About how many different hashes there were.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, rounded")]
    fn estimate(&self) -> u64 {
        let mut registers_with = [0_u32; MOST_ZEROS + 2];
        for register in self.0.iter() {
            if let Some(registers) = registers_with.get_mut(usize::from(*register)) {
                *registers += 1;
            }
        }
        let all = REGISTERS as f64;
        let [none, some @ .., full] = registers_with;
        let harmonic = all * tau(1.0 - f64::from(full) / all);
        let harmonic =
            some.iter().rev().fold(harmonic, |sum, registers| f64::midpoint(sum, f64::from(*registers)));
        let harmonic = harmonic + all * sigma(f64::from(none) / all);
        (all * all / (2.0 * LN_2 * harmonic)).round() as u64
    }
}

/// x + x² + 2x⁴ + 4x⁸ + …, as far as it changes: what registers without any hash add.
fn sigma(x: f64) -> f64 {
    let (mut power, mut weight, mut sum) = (x, 1.0, x);
    loop {
        power *= power;
        let before = sum;
        sum += power * weight;
        weight += weight;
        if sum <= before {
            return sum;
        }
    }
}

/// A third of 1 - x - (1 - √x)² / 2 - (1 - ⁴√x)² / 4 - …, as far as it changes: what full registers add.
fn tau(x: f64) -> f64 {
    let (mut root, mut weight, mut sum) = (x, 1.0, 1.0 - x);
    loop {
        root = root.sqrt();
        let before = sum;
        weight /= 2.0;
        sum -= (1.0 - root).powi(2) * weight;
        if sum >= before {
            return sum / 3.0;
        }
    }
}

#[derive(Debug)]
struct Distincts {
    values: DataType,
    slots: Sketches<Known>,
}

impl Accumulator for Distincts {
    fn grow(&mut self, slots: usize) {
        self.slots.grow(slots);
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        check(slots, arguments, self.slots.len())?;
        let hashes = hashes(&argument(arguments, 0, &self.values)?)?;
        each(slots, &hashes, |slot, hash| self.slots.change(slot, |sketch| sketch.add(hash)));
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        check(slots, state, self.slots.len())?;
        let few = argument(state, 0, &DataType::LargeList(item()))?;
        let registers = argument(state, 1, &DataType::LargeBinary)?;
        let states = few.as_list::<i64>().iter().zip(registers.as_binary::<i64>());
        for (slot, (few, registers)) in slots.iter().zip(states) {
            if registers.is_some_and(|registers| registers.len() != REGISTERS) {
                return Err(Error::internal("the state of approx_distinct is no HyperLogLog"));
            }
            self.slots.change(*slot as usize, |sketch| {
                let few = few.iter().flat_map(|few| few.as_primitive::<UInt64Type>().values());
                few.for_each(|hash| sketch.add(*hash));
                if let Some(registers) = registers {
                    sketch.registers().merge(registers);
                }
            });
        }
        Ok(())
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        check_slots(slots, self.slots.len())?;
        let lengths: Vec<usize> = self.slots.of(slots).map(|sketch| sketch.few.len()).collect();
        let hashes: Vec<u64> = self.slots.of(slots).flat_map(|sketch| &sketch.few).copied().collect();
        let hashes = Arc::new(UInt64Array::from(hashes));
        let many =
            self.slots.of(slots).map(|sketch| sketch.many.as_ref().map(|registers| registers.0.as_slice()));
        Ok(vec![
            Arc::new(LargeListArray::new(item(), OffsetBuffer::from_lengths(lengths), hashes, None)),
            Arc::new(many.collect::<LargeBinaryArray>()),
        ])
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        check_slots(slots, self.slots.len())?;
        Ok(Arc::new(self.slots.of(slots).map(|sketch| Some(sketch.count())).collect::<UInt64Array>()))
    }

    fn bytes(&self) -> usize {
        self.slots.bytes()
    }
}
