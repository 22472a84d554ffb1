//! What a value of a plan must be. Each reader returns what it expected instead when it cannot read.

use toml::de::DeValue;

use crate::units::{MAX_SECONDS, grouped};

/// What the author of a plan wrote, with the way to write it if that is plain: a number in quotes.
pub(crate) fn found_hint(value: &DeValue<'_>, expected: &str) -> String {
    let number = value.as_str().and_then(leading_number);
    match number {
        Some(number) if expected.contains("integer") || expected.contains("number") => {
            format!("this is text: write {number}")
        }
        _ => format!("this is {}", describe(value)),
    }
}

/// The number that `text` begins with: 30 of `30GB`.
fn leading_number(text: &str) -> Option<&str> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let number = &text[..end.unwrap_or(text.len())];
    number.parse::<f64>().is_ok().then_some(number)
}

/// A value as it is described to the person who wrote it.
pub(crate) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.is_empty() => "an empty string".to_owned(),
        DeValue::String(text) => format!("the string \"{text}\""),
        DeValue::Integer(number) => format!("the integer {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(flag) => format!("`{flag}`"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(items) if items.is_empty() => "an empty array".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A string that is not empty.
pub(crate) fn string(value: &DeValue<'_>) -> Result<String, String> {
    match value.as_str() {
        Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("a string that is not empty".to_owned()),
    }
}

/// `true` or `false`.
pub(crate) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| "`true` or `false`".to_owned())
}

/// An integer as TOML writes it, in any radix.
fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// An integer of at least 1 that fits 32 bits.
pub(crate) fn positive(value: &DeValue<'_>) -> Result<u32, String> {
    integer(value)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("an integer from 1 to {}", grouped(u32::MAX)))
}

/// An integer from 1 to `max`.
pub(crate) fn up_to(max: u32) -> impl Fn(&DeValue<'_>) -> Result<u32, String> {
    move |value| {
        positive(value)
            .ok()
            .filter(|number| *number <= max)
            .ok_or_else(|| format!("an integer from 1 to {}", grouped(max)))
    }
}

/// An integer from 0 to `max`.
pub(crate) fn zero_up_to(max: u32) -> impl Fn(&DeValue<'_>) -> Result<u32, String> {
    move |value| {
        non_negative(value)
            .ok()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| *number <= max)
            .ok_or_else(|| format!("an integer from 0 to {}", grouped(max)))
    }
}

/// An integer of at least 0.
pub(crate) fn non_negative(value: &DeValue<'_>) -> Result<u64, String> {
    integer(value)
        .and_then(|number| u64::try_from(number).ok())
        .ok_or_else(|| "an integer of at least 0".to_owned())
}

/// A finite number of GiB above 0.
pub(crate) fn gibibytes(value: &DeValue<'_>) -> Result<f64, String> {
    positive_number(value).map_err(|_| "a number of GiB above 0".to_owned())
}

/// A finite number above 0.
pub(crate) fn positive_number(value: &DeValue<'_>) -> Result<f64, String> {
    number(value)
        .filter(|number| number.is_finite() && *number > 0.0)
        .ok_or_else(|| "a number above 0".to_owned())
}

/// A finite number of at least 0.
pub(crate) fn non_negative_number(value: &DeValue<'_>) -> Result<f64, String> {
    number(value)
        .filter(|number| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| "a number of at least 0".to_owned())
}

/// A number from `least` to `most`.
fn number_within(value: &DeValue<'_>, least: f64, most: f64) -> Option<f64> {
    number(value).filter(|number| (least..=most).contains(number))
}

/// Seconds above 0.
pub(crate) fn seconds(value: &DeValue<'_>) -> Result<f64, String> {
    number_within(value, f64::MIN_POSITIVE, MAX_SECONDS)
        .ok_or_else(|| format!("seconds above 0 and up to {MAX_SECONDS:e}"))
}

/// Seconds, or 0.
pub(crate) fn seconds_or_none(value: &DeValue<'_>) -> Result<f64, String> {
    number_within(value, 0.0, MAX_SECONDS)
        .ok_or_else(|| format!("seconds from 0 to {MAX_SECONDS:e}"))
}

/// A rate or a factor, of a size that no clock is too short for.
pub(crate) fn rate(value: &DeValue<'_>) -> Result<f64, String> {
    number_within(value, 1e-6, 1e9).ok_or_else(|| "a number from 0.000001 to 1e9".to_owned())
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        DeValue::Integer(_) => integer(value).map(|number| number as f64),
        _ => None,
    }
}

/// Any TOML value but a date, as JSON, for keys that are handed on to a server.
pub(crate) fn json(value: &DeValue<'_>) -> Result<serde_json::Value, String> {
    use serde_json::Value;
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(_) => integer(value).ok_or("an integer of 64 bits")?.into(),
        DeValue::Float(_) => number(value)
            .and_then(serde_json::Number::from_f64)
            .map(Value::Number)
            .ok_or("a finite number")?,
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(_) => return Err("a string, a number, a flag, a list or a table".into()),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| json(item.get_ref()))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(table) => Value::Object(
            table
                .iter()
                .map(|(key, item)| Ok((key.get_ref().to_string(), json(item.get_ref())?)))
                .collect::<Result<_, String>>()?,
        ),
    })
}
