//! What labrun fills into texts of a plan when it starts a server: `{folder}`, `{vllm}` and ports.

use serde_json::{Map, Value};

/// What a text leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Placeholder<'a> {
    /// `{folder}`: the scratch folder of the server.
    Folder,
    /// `{vllm}`: the address of vLLM, `http://HOST:PORT`.
    Vllm,
    /// `{port}` and `{port.NAME}`: a free port, the same wherever the name stands.
    Port(&'a str),
}

impl<'a> Placeholder<'a> {
    /// What stands between two braces; `None` for what is no placeholder, such as JSON.
    fn of(inner: &'a str) -> Option<Self> {
        match inner {
            "folder" => Some(Self::Folder),
            "vllm" => Some(Self::Vllm),
            "port" => Some(Self::Port("")),
            _ => {
                let name = inner.strip_prefix("port.")?;
                let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                (!name.is_empty() && name.chars().all(fits)).then_some(Self::Port(name))
            }
        }
    }
}

/// A stretch of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'a> {
    Plain(&'a str),
    Open(Placeholder<'a>),
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let mut all = Vec::new();
    let mut plain = 0;
    for (start, _) in text.match_indices('{') {
        let inner = &text[start + 1..];
        let Some(end) = inner.find('}') else { break };
        if let Some(open) = Placeholder::of(&inner[..end]) {
            all.push(Part::Plain(&text[plain..start]));
            all.push(Part::Open(open));
            plain = start + end + 2;
        }
    }
    all.push(Part::Plain(&text[plain..]));
    all
}

/// The placeholders of `text`, in order.
pub(crate) fn of_text(text: &str) -> Vec<Placeholder<'_>> {
    let open = |part| match part {
        Part::Open(placeholder) => Some(placeholder),
        Part::Plain(_) => None,
    };
    parts(text).into_iter().filter_map(open).collect()
}

/// The placeholders of all texts in `value`.
pub(crate) fn of_value(value: &Value) -> Vec<Placeholder<'_>> {
    match value {
        Value::String(text) => of_text(text),
        Value::Array(items) => items.iter().flat_map(of_value).collect(),
        Value::Object(table) => table.values().flat_map(of_value).collect(),
        _ => Vec::new(),
    }
}

/// What a server's start fills in.
pub(crate) trait Fill {
    /// The value of `placeholder`.
    fn value(&self, placeholder: Placeholder<'_>) -> String;

    /// `text` with all of them.
    fn text(&self, text: &str) -> String {
        let filled = parts(text).into_iter().map(|part| match part {
            Part::Plain(plain) => plain.to_owned(),
            Part::Open(placeholder) => self.value(placeholder),
        });
        filled.collect()
    }

    /// `value` with all of them; a text that is nothing but a port becomes a number.
    fn json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                let filled = self.text(text);
                let is_port = matches!(
                    parts(text).as_slice(),
                    [
                        Part::Plain(""),
                        Part::Open(Placeholder::Port(_)),
                        Part::Plain("")
                    ]
                );
                let number = filled.parse::<u16>().ok().filter(|_| is_port);
                number.map_or(Value::String(filled), Value::from)
            }
            Value::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Value::Object(table) => Value::Object(self.table(table)),
            other => other.clone(),
        }
    }

    /// `table` with all of them.
    fn table(&self, table: &Map<String, Value>) -> Map<String, Value> {
        let filled = table.iter();
        filled
            .map(|(key, value)| (key.clone(), self.json(value)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Values;

    impl Fill for Values {
        fn value(&self, placeholder: Placeholder<'_>) -> String {
            match placeholder {
                Placeholder::Folder => "/s".to_owned(),
                Placeholder::Vllm => "http://h:1".to_owned(),
                Placeholder::Port("") => "7".to_owned(),
                Placeholder::Port(name) => format!("{}", 100 + name.len()),
            }
        }
    }

    #[test]
    fn placeholders_are_filled_in_and_everything_else_stays_as_it_is() {
        for (text, filled) in [
            ("{folder}/kv", "/s/kv"),
            ("http://h:{port.ab}/m?{port}", "http://h:102/m?7"),
            ("{vllm}/reset", "http://h:1/reset"),
            (
                r#"{"type":"fs","at":"{folder}"}"#,
                r#"{"type":"fs","at":"/s"}"#,
            ),
            ("{{folder}}", "{/s}"),
            ("{port.} {ports} {} {folder", "{port.} {ports} {} {folder"),
            ("", ""),
        ] {
            assert_eq!(Values.text(text), filled, "{text}");
        }
        assert_eq!(
            of_text("{folder}{port.a}x"),
            [Placeholder::Folder, Placeholder::Port("a")]
        );
    }

    #[test]
    fn a_text_that_is_a_port_alone_is_a_number() {
        let given =
            json!({"port": "{port.ab}", "url": "h:{port}", "deep": [{"n": "{port}"}], "k": 1.5});
        let filled = json!({"port": 102, "url": "h:7", "deep": [{"n": 7}], "k": 1.5});
        assert_eq!(Values.json(&given), filled);
        assert_eq!(of_value(&given).len(), 3);
    }
}
