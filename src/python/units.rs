//! Durations and sizes as users write them: `"500ms"`, a `timedelta` or seconds; `"25%"`, `"512MB"` or bytes.
//!
//! It deliberately knows no setting: which durations are allowed where is checked by whoever takes them.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta};

use crate::error::{Error, Result};

/// A length of time from Python.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span(pub(crate) Duration);

impl<'py> FromPyObject<'_, 'py> for Span {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(text) = object.extract::<String>() {
            return Ok(Self(duration(&text)?));
        }
        let found = || object.repr().map_or_else(|_| "?".to_owned(), |shown| shown.to_string());
        if object.is_instance_of::<PyDelta>() {
            let seconds: f64 = object.call_method0("total_seconds")?.extract()?;
            return Ok(Self(from_seconds(seconds, found)?));
        }
        match object.extract::<f64>() {
            Ok(seconds) if !object.is_instance_of::<PyBool>() => Ok(Self(from_seconds(seconds, found)?)),
            _ => Err(not_a_duration(&found()).into()),
        }
    }
}

/// An amount of memory from Python.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Size {
    /// So many bytes.
    Bytes(u64),
    /// This part of what the process may use, above 0 and at most 1.
    Part(f64),
}

impl<'py> FromPyObject<'_, 'py> for Size {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(text) = object.extract::<String>() {
            return Ok(size(&text)?);
        }
        match object.extract::<u64>() {
            Ok(bytes) if bytes > 0 && !object.is_instance_of::<PyBool>() => Ok(Self::Bytes(bytes)),
            _ => Err(not_a_size(&object.repr()?.to_string()).into()),
        }
    }
}

impl Size {
    /// The size in bytes, where `whole` is what a part is a part of.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a u64, at most all of it"
    )]
    pub(crate) fn bytes(self, whole: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Part(part) => (whole as f64 * part) as u64,
        }
    }
}

fn duration(text: &str) -> Result<Duration> {
    let (number, unit) = split(text).ok_or_else(|| not_a_duration(&quoted(text)))?;
    let seconds = match unit {
        "us" | "µs" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3_600.0,
        "d" => number * 86_400.0,
        _ => return Err(not_a_duration(&quoted(text))),
    };
    from_seconds(seconds, || quoted(text))
}

/// What is longer is a mistake of unit: about 300 years.
const LONGEST_S: f64 = 1e10;

/// Rounded to microseconds: 0.1 s is 100 ms, though no float says so exactly.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
fn from_seconds(seconds: f64, found: impl FnOnce() -> String) -> Result<Duration> {
    if seconds > LONGEST_S {
        let message = format!("a duration of at most 300 years is expected, found {}", found());
        return Err(Error::config(message).help("check the unit: a number alone counts seconds"));
    }
    if seconds.is_nan() || seconds < 0.0 {
        return Err(not_a_duration(&found()));
    }
    Ok(Duration::from_micros((seconds * 1e6).round() as u64))
}

fn size(text: &str) -> Result<Size> {
    let (number, unit) = split(text).ok_or_else(|| not_a_size(&quoted(text)))?;
    let scale = match unit {
        "%" if number > 0.0 && number <= 100.0 => return Ok(Size::Part(number / 100.0)),
        "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        _ => return Err(not_a_size(&quoted(text))),
    };
    whole_bytes(number * scale).ok_or_else(|| not_a_size(&quoted(text)))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
fn whole_bytes(bytes: f64) -> Option<Size> {
    (1.0..1e18).contains(&bytes).then_some(Size::Bytes(bytes as u64))
}

/// A number and the unit behind it, with or without a space between.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim()))
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn not_a_duration(found: &str) -> Error {
    Error::config(format!("a duration is expected, found {found}"))
        .help("pass text such as \"500ms\", \"10s\", \"5m\", \"1h\" or \"2d\", a timedelta, or seconds; none is negative")
}

fn not_a_size(found: &str) -> Error {
    Error::config(format!("a size is expected, found {found}"))
        .help("pass text such as \"25%\", \"512MB\" or \"2GiB\", or a positive number of bytes")
}
