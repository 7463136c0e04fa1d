//! Which types are alike as keys, and why some cannot be keys at all.
//!
//! It deliberately knows nothing of how a value is written; that is [`canonical`](crate::state::canonical).

use std::fmt;

use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, FieldRef};

/// The types that are alike as keys: the same value has the same bytes in each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Null,
    Boolean,
    Integer,
    Float,
    Decimal,
    Text,
    Binary,
    Date,
    Time,
    Timestamp,
    Duration,
    List(Box<Class>),
    Struct(Vec<Class>),
}

/// Why values of a type cannot be told apart, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) why: &'static str,
    pub(super) help: &'static str,
}

const MAP: Unfit = Unfit {
    why: "the entries of a map have no order of their own, so that equal maps may look different",
    help: "make columns of the entries that matter first, and take those",
};
const INTERVAL: Unfit = Unfit {
    why: "a month is no fixed number of days, so that it is open which intervals are equal",
    help: "cast it to a duration, or take its months and days as two columns",
};
const OTHER: Unfit = Unfit {
    why: "values of this type are not compared",
    help: "cast the column first; keys are bools, numbers, decimals, strings, binary, dates and times, lists and structs",
};

impl Class {
    /// The class of a type; of a list or a struct with those of its parts.
    pub(super) fn of(data_type: &DataType) -> Result<Self, Unfit> {
        Ok(match data_type {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Boolean,
            integer if integer.is_integer() => Self::Integer,
            float if float.is_floating() => Self::Float,
            decimal if decimal.is_decimal() => Self::Decimal,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            binary if is_binary(binary) => Self::Binary,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Time32(_) | DataType::Time64(_) => Self::Time,
            DataType::Timestamp(..) => Self::Timestamp,
            DataType::Duration(_) => Self::Duration,
            DataType::Struct(fields) => Self::Struct(
                fields.iter().map(|field| Self::of(field.data_type())).collect::<Result<_, _>>()?,
            ),
            DataType::Map(..) => return Err(MAP),
            DataType::Interval(_) => return Err(INTERVAL),
            other => return Self::of_container(other),
        })
    }

    fn of_container(data_type: &DataType) -> Result<Self, Unfit> {
        match item(data_type) {
            Some(item) => Ok(Self::List(Box::new(Self::of(item.data_type())?))),
            // What cannot be made again from its plain values could be no column of a result.
            None if plain(data_type) != data_type && can_cast_types(plain(data_type), data_type) => {
                Self::of(plain(data_type))
            }
            None => Err(OTHER),
        }
    }
}

impl fmt::Display for Class {
    /// In words that never change: state is found again by them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Decimal => "decimal",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::List(item) => return write!(f, "list<{item}>"),
            Self::Struct(fields) => {
                let fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
                return write!(f, "struct<{}>", fields.join(", "));
            }
        })
    }
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
    )
}

/// The values of a list, in whichever layout.
pub(super) fn item(data_type: &DataType) -> Option<&FieldRef> {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => Some(item),
        _ => None,
    }
}

/// The type itself, or that of the values which a dictionary or runs stand for.
pub(super) fn plain(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values,
        DataType::RunEndEncoded(_, values) => values.data_type(),
        other => other,
    }
}
