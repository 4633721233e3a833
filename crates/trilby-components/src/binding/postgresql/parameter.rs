//! A JSON value as the parameter of a statement: sent as text, which the server reads as a literal of the type it needs.

use std::error::Error;

use bytes::{BufMut as _, BytesMut};
use serde_json::Value;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type, to_sql_checked};

/// One parameter.
#[derive(Debug)]
pub(super) struct Parameter(pub(super) Value);

impl ToSql for Parameter {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match &self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::Array(items) if matches!(kind.kind(), Kind::Array(_)) => out.put_slice(array(items).as_bytes()),
            value => out.put_slice(text(value).as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// A literal such as `{1,"two",NULL}`.
fn array(items: &[Value]) -> String {
    let item = |item: &Value| match item {
        Value::Null => "NULL".to_owned(),
        Value::Array(items) => array(items),
        value => format!("\"{}\"", text(value).replace('\\', "\\\\").replace('"', "\\\"")),
    };
    format!("{{{}}}", items.iter().map(item).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_written_as_a_literal() {
        for (value, kind, expect) in [
            (json!(1), Type::INT4, "1"),
            (json!("it's"), Type::TEXT, "it's"),
            (json!(true), Type::BOOL, "true"),
            (json!({"a": [1]}), Type::JSONB, r#"{"a":[1]}"#),
            (json!([1, 2]), Type::JSONB, "[1,2]"),
            (json!([1, null, "a\"b\\"]), Type::TEXT_ARRAY, r#"{"1",NULL,"a\"b\\"}"#),
            (json!([[1], [2]]), Type::INT4_ARRAY, r#"{{"1"},{"2"}}"#),
        ] {
            let mut out = BytesMut::new();
            let written = Parameter(value).to_sql(&kind, &mut out).expect("any value");
            assert!(matches!(written, IsNull::No));
            assert_eq!(out, expect);
        }
        let null = Parameter(Value::Null).to_sql(&Type::INT4, &mut BytesMut::new()).expect("any value");
        assert!(matches!(null, IsNull::Yes));
    }
}
