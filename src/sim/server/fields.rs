//! Single fields of a body, with pydantic's leniency and its errors.

use serde_json::Value;

use super::{
    error::{ApiError, python},
    protocol::RequestBody,
};

impl RequestBody {
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, ApiError> {
        let bad = |kind: &str, message: &str, value: &Value| {
            ApiError::invalid(kind, name, message, &python(value))
        };
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => Ok(number.as_f64()),
            Some(value @ Value::String(text)) => text.trim().parse().map(Some).map_err(|_| {
                let message = "Input should be a valid number, unable to parse string as a number";
                bad("float_parsing", message, value)
            }),
            Some(value) => Err(bad("float_type", "Input should be a valid number", value)),
        }
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let bad = |kind: &str, message: &str, value: &Value| {
            ApiError::invalid(kind, name, message, &python(value))
        };
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value @ Value::Number(number)) => {
                let whole = number.as_f64().filter(|float| float.fract() == 0.0);
                let integer = number.as_i64().or_else(|| whole.map(|float| float as i64));
                integer.map(Some).ok_or_else(|| {
                    let message =
                        "Input should be a valid integer, got a number with a fractional part";
                    bad("int_from_float", message, value)
                })
            }
            Some(value @ Value::String(text)) => text.trim().parse().map(Some).map_err(|_| {
                let message =
                    "Input should be a valid integer, unable to parse string as an integer";
                bad("int_parsing", message, value)
            }),
            Some(value) => Err(bad("int_type", "Input should be a valid integer", value)),
        }
    }

    /// An integer of at least `least`.
    pub(super) fn count(&self, name: &str, least: i64) -> Result<Option<u32>, ApiError> {
        let Some(integer) = self.integer(name)? else {
            return Ok(None);
        };
        if integer < least {
            let message = format!("{name} must be at least {least}, got {integer}.");
            return Err(ApiError::parameter(
                &message,
                name,
                Some(&integer.to_string()),
            ));
        }
        Ok(Some(u32::try_from(integer).unwrap_or(u32::MAX)))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => {
                let message = "Input should be a valid boolean";
                Err(ApiError::invalid(
                    "bool_type",
                    name,
                    message,
                    &python(value),
                ))
            }
        }
    }
}
