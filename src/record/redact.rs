//! Removes secrets, and what would steer a terminal, from what is stored.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::foreign::visible;
use crate::secret;

/// `text` as it may be stored and shown.
pub(crate) fn text(text: &str) -> String {
    visible(&secret::mask(text)).into_owned()
}

/// Named texts as they may be stored and shown: as [`json`] leaves a table of them.
pub(crate) fn table(values: &mut BTreeMap<String, String>) {
    for (name, value) in values {
        *value = if secret::name::is_secret(name) && !value.is_empty() {
            secret::MASK.to_owned()
        } else {
            text(value)
        };
    }
}

/// `value` as it may be stored and shown: secrets masked, control characters written out.
pub(crate) fn json(value: &mut Value) {
    secret::mask_json(value);
    write_out(value);
}

fn write_out(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let std::borrow::Cow::Owned(shown) = visible(text) {
                *text = shown;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_out),
        Value::Object(table) => table.values_mut().for_each(write_out),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_masked_as_its_json_is() {
        let mut values = BTreeMap::from(
            [
                ("env.DB_PASS", "x1"),
                ("url", "http://a:b@c/"),
                ("plan.secrets", "[\"A\"]"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let mut as_json = serde_json::to_value(&values).unwrap();
        json(&mut as_json);
        table(&mut values);
        assert_eq!(serde_json::to_value(&values).unwrap(), as_json);
        assert_eq!(
            (
                values["env.DB_PASS"].as_str(),
                values["plan.secrets"].as_str()
            ),
            ("***", "[\"A\"]")
        );
    }

    #[test]
    fn what_is_stored_holds_no_secret_and_steers_no_terminal() {
        let mut value = serde_json::json!({
            "error": "\u{1b}]0;x\u{7} at http://a:b@c/", "env": [{"DB_PASS": "x1"}],
        });
        json(&mut value);
        assert_eq!(
            value,
            serde_json::json!({
                "error": "\\x1b]0;x\\x07 at http://***@c/", "env": [{"DB_PASS": "***"}],
            })
        );
    }
}
