//! Error answers, byte for byte as vLLM writes them.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Something vLLM answers with a JSON error.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<String>,
}

impl ApiError {
    /// A value that vLLM itself refuses.
    pub(super) fn bad_request(message: String, param: Option<&str>) -> Self {
        let status = StatusCode::BAD_REQUEST;
        Self {
            status,
            kind: "BadRequestError",
            message,
            param: param.map(str::to_owned),
        }
    }

    /// A parameter that vLLM itself refuses; the message names it, with its value if there is one.
    pub(super) fn parameter(message: &str, name: &str, value: Option<&str>) -> Self {
        let value = value.map_or_else(String::new, |value| format!(", value={value}"));
        Self::bad_request(format!("{message} (parameter={name}{value})"), Some(name))
    }

    /// A body that does not fit the schema.
    pub(super) fn invalid(kind: &str, field: &str, message: &str, input: &str) -> Self {
        let message = format!(
            "1 validation error:\n  {{'type': '{kind}', 'loc': 'body.{field}', 'msg': \
             '{message}', 'input': {input}}}"
        );
        let param = Some(format!("body.{field}"));
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "Bad Request",
            message,
            param,
        }
    }

    /// A body that is not JSON.
    pub(super) fn bad_json(body: &[u8], error: &serde_json::Error) -> Self {
        let (at, reason) = python_json_error(body, error);
        // Python quotes with ' unless there is one inside.
        let quote = if reason.contains('\'') { '"' } else { '\'' };
        let message = format!(
            "1 validation error:\n  {{'type': 'json_invalid', 'loc': 'body.{at}', 'msg': 'JSON \
             decode error', 'input': '<dict of 0 items>', 'ctx': {{'error': \
             {quote}{reason}{quote}}}}}"
        );
        let param = Some(format!("body.{at}"));
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "Bad Request",
            message,
            param,
        }
    }

    pub(super) fn unknown_model(asked: &str, served: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            kind: "NotFoundError",
            message: format!("The model `{asked}` does not exist. Valid aliases: {served}."),
            param: Some("model".to_owned()),
        }
    }

    pub(super) fn engine_dead() -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "InternalServerError",
            message: "EngineCore encountered an issue. See stack trace (above) for the root cause."
                .to_owned(),
            param: None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.status.as_u16(),
        }});
        json_response(self.status, body.to_string())
    }
}

/// A JSON answer from finished text.
pub(super) fn json_response(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// FastAPI's short errors.
pub(super) fn detail(status: StatusCode, text: &str) -> Response {
    json_response(status, json!({ "detail": text }).to_string())
}

/// A JSON value as Python's `repr` shows it, long containers shortened like vLLM does.
pub(super) fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("'{text}'"),
        Value::Array(items) => format!("'<list of {} items>'", items.len()),
        Value::Object(fields) => format!("'<dict of {} items>'", fields.len()),
    }
}

/// Where Python's JSON reader would stop, and its message.
fn python_json_error(body: &[u8], error: &serde_json::Error) -> (usize, &'static str) {
    let line_start: usize = body
        .split_inclusive(|&byte| byte == b'\n')
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let offset = (line_start + error.column()).min(body.len());
    let at = if error.is_eof() {
        body.len()
    } else {
        offset.saturating_sub(1)
    };
    let text = error.to_string();
    let reason = if text.starts_with("EOF while parsing a string") {
        "Unterminated string starting at"
    } else if text.starts_with("expected `:`") {
        "Expecting ':' delimiter"
    } else if text.starts_with("expected `,`") || text.starts_with("EOF while parsing an object") {
        "Expecting ',' delimiter"
    } else if text.starts_with("key must be a string") || text.starts_with("trailing comma") {
        "Expecting property name enclosed in double quotes"
    } else if text.starts_with("trailing characters") {
        "Extra data"
    } else {
        "Expecting value"
    };
    (at, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_error(body: &str) -> String {
        let error = serde_json::from_str::<Value>(body).unwrap_err();
        ApiError::bad_json(body.as_bytes(), &error).message
    }

    #[test]
    fn json_errors_are_placed_where_python_places_them() {
        assert!(json_error(r#"{"model":"tiny","prompt":"#).contains("'loc': 'body.25'"));
        let colon = json_error(r#"{"model" "tiny"}"#);
        assert!(colon.contains("'body.9'"), "{colon}");
        assert!(
            colon.ends_with(r#"'ctx': {'error': "Expecting ':' delimiter"}}"#),
            "{colon}"
        );
        assert!(json_error("{} x").contains("Extra data"));
    }
}
