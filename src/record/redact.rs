//! Takes secrets out of what is kept.

use serde_json::Value;

use crate::plan::server::is_secret_name;

/// What stands where a secret stood.
const MASK: &str = "***";

/// `text` without the user and password of any URL in it.
pub fn urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/\"'<>,)".contains(c));
        let authority = &after[..end.unwrap_or(after.len())];
        match authority.rfind('@') {
            Some(host) => {
                out.push_str(MASK);
                rest = &after[host..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    out
}

/// `value` without secrets: those of URLs, and the values of names that mark them.
pub fn json(value: &mut Value) {
    match value {
        Value::String(text) => *text = urls(text),
        Value::Array(items) => items.iter_mut().for_each(json),
        Value::Object(table) => {
            for (name, item) in table {
                if is_secret_name(name) && !item.is_null() {
                    *item = Value::String(MASK.to_owned());
                } else {
                    json(item);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_user_and_password_and_nothing_else() {
        assert_eq!(
            urls("remote_url: \"redis://me:s3cret@10.0.0.1:6379/0\" x"),
            "remote_url: \"redis://***@10.0.0.1:6379/0\" x"
        );
        assert_eq!(urls("redis://:p@w@host"), "redis://***@host");
        let plain = "see http://127.0.0.1:8000/v1, mail a@b";
        assert_eq!(urls(plain), plain);
    }

    #[test]
    fn json_loses_the_values_of_secret_names() {
        let mut value = serde_json::json!({
            "env": {"HF_TOKEN": "hf_x", "PATH": "/bin"}, "url": "http://a:b@c/",
        });
        json(&mut value);
        assert_eq!(
            value,
            serde_json::json!({"env": {"HF_TOKEN": "***", "PATH": "/bin"}, "url": "http://***@c/"})
        );
    }
}
