//! What stands in lists, structs and maps: a member by its name, an item by its place, and how many items there are.
//!
//! DataFusion's own `get_field` gives the member of a struct that is null where the member is not. A place outside a
//! list gives null, as a key that a map lacks does; it deliberately never fails a batch.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericListArray, Int64Array, MapArray, OffsetSizeTrait, StructArray,
    UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{is_null, nullif, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use datafusion_common::{Result, ScalarValue, exec_err, internal_err, plan_err, utils::take_function_args};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::nearest;
use crate::types::type_name;

/// Whether `name` is one of the functions here, which say themselves what is wrong with their arguments.
pub(super) fn is_into_nested(name: &str) -> bool {
    matches!(name, "member" | "item" | "item_count")
}

macro_rules! function {
    ($type:ident, $name:literal, $result:ident, $compute:ident, $coerce:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, PartialEq, Eq, Hash)]
        pub(super) struct $type(Signature);

        impl Default for $type {
            fn default() -> Self {
                Self(Signature::user_defined(Volatility::Immutable))
            }
        }

        impl ScalarUDFImpl for $type {
            fn name(&self) -> &str {
                $name
            }

            fn signature(&self) -> &Signature {
                &self.0
            }

            fn return_type(&self, _: &[DataType]) -> Result<DataType> {
                internal_err!("{} is asked for its field", $name)
            }

            fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
                Ok(Arc::new(Field::new($name, $result(&arguments)?, true)))
            }

            fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
                $coerce(types)
            }

            fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
                Ok(ColumnarValue::Array($compute(&arguments)?))
            }
        }
    };
}

function!(Member, "member", member_type, member, member_types, "The member of a struct or map with a name.");
function!(
    Item,
    "item",
    item_type,
    item,
    item_types,
    "The item of a list in a place, from the end where it is negative."
);
function!(ItemCount, "item_count", count_type, item_count, count_types, "How many items a list or map has.");

/// What is wrong with the types is told where the result's type is asked for, in words that are not wrapped.
fn member_types(types: &[DataType]) -> Result<Vec<DataType>> {
    let [of, name] = take_function_args("member", types)?;
    Ok(vec![of.clone(), if name.is_string() { DataType::Utf8 } else { name.clone() }])
}

/// The name of a member, which is the same in every row.
fn constant<'a>(scalars: &[Option<&'a ScalarValue>]) -> Option<&'a str> {
    scalars.get(1).copied().flatten().and_then(|name| name.try_as_str().flatten())
}

fn member_type(arguments: &ReturnFieldArgs<'_>) -> Result<DataType> {
    let [of, _] = take_function_args("member", arguments.arg_fields)?;
    let Some(name) = constant(arguments.scalar_arguments) else {
        return plan_err!("the name of a member is a constant text");
    };
    match of.data_type() {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                Ok(fields.iter().last().map_or(DataType::Null, |value| value.data_type().clone()))
            }
            other => internal_err!("the entries of a map are {other}"),
        },
        DataType::Struct(fields) => {
            let found = fields.iter().find(|field| field.name() == name);
            found.map_or_else(|| unknown(name, fields), |field| Ok(field.data_type().clone()))
        }
        other => plan_err!("only structs and maps have members, found {}", type_name(other)),
    }
}

fn unknown(name: &str, fields: &Fields) -> Result<DataType> {
    let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    let near = nearest(name, names.iter().copied());
    let near = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    plan_err!("there is no member {name:?}; there are {}{near}", names.join(", "))
}

fn member(arguments: &ScalarFunctionArgs) -> Result<ArrayRef> {
    let [of, name] = take_function_args("member", &arguments.args)?;
    let ColumnarValue::Scalar(name) = name else {
        return exec_err!("the name of a member is a constant text");
    };
    let name = name.try_as_str().flatten().unwrap_or_default();
    let of = of.to_array(arguments.number_rows)?;
    match of.data_type() {
        DataType::Struct(_) => member_of_struct(of.as_struct(), name),
        DataType::Map(..) => value_of_map(of.as_map(), name),
        other => exec_err!("only structs and maps have members, found {}", type_name(other)),
    }
}

fn member_of_struct(of: &StructArray, name: &str) -> Result<ArrayRef> {
    let Some(values) = of.column_by_name(name) else { return exec_err!("there is no member {name:?}") };
    if of.null_count() == 0 {
        return Ok(Arc::clone(values));
    }
    Ok(nullif(values, &is_null(of)?)?)
}

/// The value of the last entry with this key: a decoder leaves none twice, others may.
fn value_of_map(of: &MapArray, name: &str) -> Result<ArrayRef> {
    let keys = arrow::compute::cast(of.keys(), &DataType::LargeUtf8)?;
    let keys = keys.as_string::<i64>();
    let offsets = of.value_offsets();
    let place = |(row, bounds): (usize, &[i32])| {
        let [start, end] = bounds else { return None };
        let (start, end) = (usize::try_from(*start).ok()?, usize::try_from(*end).ok()?);
        let found = (start..end).rev().find(|entry| keys.value(*entry) == name);
        found.filter(|_| of.is_valid(row)).map(|entry| entry as u64)
    };
    let places: UInt64Array = offsets.windows(2).enumerate().map(place).collect();
    Ok(take(of.values(), &places, None)?)
}

fn item_types(types: &[DataType]) -> Result<Vec<DataType>> {
    let [of, place] = take_function_args("item", types)?;
    let whole = place.is_integer() || place.is_null();
    Ok(vec![of.clone(), if whole { DataType::Int64 } else { place.clone() }])
}

fn item_type(arguments: &ReturnFieldArgs<'_>) -> Result<DataType> {
    let [of, place] = take_function_args("item", arguments.arg_fields)?;
    match of.data_type() {
        DataType::List(_) | DataType::LargeList(_) if *place.data_type() != DataType::Int64 => {
            plan_err!("the place of an item is a whole number, found {}", type_name(place.data_type()))
        }
        DataType::List(item) | DataType::LargeList(item) => Ok(item.data_type().clone()),
        other => plan_err!("only lists have items, found {}", type_name(other)),
    }
}

fn item(arguments: &ScalarFunctionArgs) -> Result<ArrayRef> {
    let [of, place] = take_function_args("item", &arguments.args)?;
    let (of, place) = (of.to_array(arguments.number_rows)?, place.to_array(arguments.number_rows)?);
    let places = place.as_primitive::<Int64Type>();
    match of.data_type() {
        DataType::List(_) => item_of_list(of.as_list::<i32>(), places),
        DataType::LargeList(_) => item_of_list(of.as_list::<i64>(), places),
        other => exec_err!("only lists have items, found {}", type_name(other)),
    }
}

fn item_of_list<O: OffsetSizeTrait>(of: &GenericListArray<O>, places: &Int64Array) -> Result<ArrayRef> {
    let bounds = of.value_offsets().windows(2).zip(places).enumerate();
    let place = |(row, (bounds, place)): (usize, (&[O], Option<i64>))| {
        let [start, end] = bounds else { return None };
        let (start, end) = (start.to_i64()?, end.to_i64()?);
        let place = place.filter(|_| of.is_valid(row))?;
        let found = if place < 0 { end.checked_add(place)? } else { start.checked_add(place)? };
        u64::try_from(found).ok().filter(|_| (start..end).contains(&found))
    };
    let places: UInt64Array = bounds.map(place).collect();
    Ok(take(of.values(), &places, None)?)
}

fn count_types(types: &[DataType]) -> Result<Vec<DataType>> {
    let [of] = take_function_args("item_count", types)?;
    Ok(vec![of.clone()])
}

fn count_type(arguments: &ReturnFieldArgs<'_>) -> Result<DataType> {
    let [of] = take_function_args("item_count", arguments.arg_fields)?;
    match of.data_type() {
        DataType::List(_) | DataType::LargeList(_) | DataType::Map(..) => Ok(DataType::Int64),
        other => plan_err!("only lists and maps have items, found {}", type_name(other)),
    }
}

fn item_count(arguments: &ScalarFunctionArgs) -> Result<ArrayRef> {
    let [of] = take_function_args("item_count", &arguments.args)?;
    let of = of.to_array(arguments.number_rows)?;
    Ok(match of.data_type() {
        DataType::List(_) => lengths(of.as_list::<i32>().value_offsets(), of.nulls()),
        DataType::LargeList(_) => lengths(of.as_list::<i64>().value_offsets(), of.nulls()),
        DataType::Map(..) => lengths(of.as_map().value_offsets(), of.nulls()),
        other => return exec_err!("only lists and maps have items, found {}", type_name(other)),
    })
}

fn lengths<O: OffsetSizeTrait>(offsets: &[O], nulls: Option<&NullBuffer>) -> ArrayRef {
    let length = |bounds: &[O]| match bounds {
        [start, end] => end.to_i64().unwrap_or_default() - start.to_i64().unwrap_or_default(),
        _ => 0,
    };
    Arc::new(Int64Array::new(offsets.windows(2).map(length).collect(), nulls.cloned()))
}
