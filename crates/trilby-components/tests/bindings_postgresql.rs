//! `bindings.postgresql` against a PostgreSQL server. `TRILBY_TEST_POSTGRES` says where it is, as for `state.postgresql`.
#![cfg(feature = "postgresql")]

mod support;

use std::sync::Arc;

use serde_json::{Value, json};
use support::unique;
use trilby_component::{
    ErrorKind, Metadata,
    binding::{Binding, InvokeError, InvokeRequest, InvokeResponse},
};

async fn opened(more: &[(&str, &str)]) -> Option<Arc<Binding>> {
    let url = support::server("bindings.postgresql", "TRILBY_TEST_POSTGRES")?;
    let properties: Vec<_> = [("connectionString", url.as_str())].into_iter().chain(more.iter().copied()).collect();
    let request = support::request(&properties);
    Some(trilby_components::builtins().open_binding("bindings.postgresql", "v1", request).await.expect("it is up"))
}

async fn call(binding: &Binding, operation: &str, sql: &str, params: &str) -> Result<InvokeResponse, InvokeError> {
    let metadata = Metadata::from([("sql".to_owned(), sql.to_owned()), ("params".to_owned(), params.to_owned())]);
    let request = InvokeRequest { operation: operation.to_owned(), metadata, ..InvokeRequest::default() };
    binding.output.as_ref().expect("an output").invoke(&request).await
}

async fn rows(binding: &Binding, sql: &str, params: &Value) -> Value {
    let answer = call(binding, "query", sql, &params.to_string()).await.expect(sql);
    serde_json::from_slice(&answer.data.expect("rows")).expect("JSON")
}

#[tokio::test]
async fn statements_are_executed_and_rows_read() {
    let modes: [&[(&str, &str)]; 2] = [&[], &[("queryExecMode", "exec")]];
    for mode in modes {
        let Some(sql) = opened(mode).await else { return };
        let table = unique();
        call(&sql, "exec", &format!("CREATE TABLE {table} (id int, name text, tags text[], doc jsonb)"), "")
            .await
            .expect("created");
        let insert = format!("INSERT INTO {table} VALUES ($1, $2, $3, $4), (2, NULL, NULL, NULL)");
        // Without a description of the statement nothing says that the third is an array, so it comes as PostgreSQL's text.
        let tags = if mode.is_empty() { json!(["a", "b\"c"]) } else { json!(r#"{a,"b\"c"}"#) };
        let params = json!([1, "it's", tags, { "n": 1.5 }]).to_string();
        let answer = call(&sql, "exec", &insert, &params).await.expect("inserted");
        let said = |name: &str| answer.metadata.get(name).map(String::as_str).unwrap_or_default();
        assert_eq!((said("operation"), said("rows-affected"), said("sql")), ("exec", "2", insert.as_str()));
        assert!(said("start-time").ends_with('Z') && said("end-time") >= said("start-time"), "{answer:?}");
        assert_eq!(answer.data.as_deref(), Some(&b""[..]));

        let found = rows(&sql, &format!("SELECT * FROM {table} WHERE id < $1 ORDER BY id"), &json!([10])).await;
        assert_eq!(found, json!([[1, "it's", ["a", "b\"c"], { "n": 1.5 }], [2, null, null, null]]));
        call(&sql, "exec", &format!("DROP TABLE {table}"), "").await.expect("dropped");
    }
}

#[tokio::test]
async fn types_are_told_as_json() {
    let Some(sql) = opened(&[]).await else { return };
    let types = "SELECT true, 2::int2, 9007199254740993::int8, 0.5::float4, 12345678901234567890.10::numeric, 'x'::char(3), \
        '\\xDEAD'::bytea, '{\"a\": 1.10}'::json, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, \
        '2026-01-02 03:04:05.6+01'::timestamptz, '2026-01-02'::date, '{1,NULL}'::int4[]";
    let answer = call(&sql, "query", types, "").await.expect("selected");
    let expect = r#"[[true,2,9007199254740993,0.5,12345678901234567890.10,"x  ","3q0=",{"a": 1.10},"#.to_owned()
        + r#""a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","2026-01-02T02:04:05.6Z","2026-01-02T00:00:00Z",[1,null]]]"#;
    assert_eq!(String::from_utf8_lossy(&answer.data.expect("rows")), expect);
    let error = call(&sql, "query", "SELECT '1.2.3.4'::inet AS place", "").await.expect_err("no JSON").error;
    let expect =
        "error serializing results: column place: type inet cannot be told as JSON; cast it to text in the statement";
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unsupported, expect));
}

#[tokio::test]
async fn what_cannot_be_executed_says_why() {
    let Some(sql) = opened(&[]).await else { return };
    for (operation, statement, params, expect) in [
        ("query", "", "", "required metadata not set: sql"),
        ("query", "SELECT 1", "{", "invalid metadata property params: failed to unserialize into an array: "),
        ("query", "SELEC 1", "", "error executing query: ERROR: syntax error at or near \"SELEC\" (SQLSTATE 42601)"),
        ("exec", "SELECT $1::int", r#"["x"]"#, "error executing query: ERROR: invalid input syntax for type integer"),
    ] {
        let error = call(&sql, operation, statement, params).await.expect_err(expect).error;
        assert!(error.to_string().starts_with(expect), "{error}");
    }
    assert_eq!(rows(&sql, "SELECT 1", &json!([])).await, json!([[1]]), "nothing is left behind");
    call(&sql, "close", "", "").await.expect("closed");
    let error = call(&sql, "query", "SELECT 1", "").await.expect_err("closed").error;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
