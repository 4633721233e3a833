//! What every binding must do, as an application sees it.

use super::{Case, Outcome, check, check_eq};
use crate::client::Client;

/// What a binding says of itself if it can be called.
const OUTPUT: &str = "OUTPUT_BINDING";

/// All cases.
#[must_use]
pub fn all() -> Vec<Case> {
    vec![
        Case::new("an_unknown_operation_is_answered_with_the_known_ones", vec![OUTPUT], |c, b| Box::pin(unknown(c, b))),
        Case::new("a_call_without_an_operation_is_an_error", vec![OUTPUT], |c, b| Box::pin(unnamed(c, b))),
        Case::new("a_binding_that_does_not_exist_is_an_error_that_names_it", vec![OUTPUT], |c, _| Box::pin(missing(c))),
        Case::new("a_file_holds_what_was_sent", vec![OUTPUT], |c, b| Box::pin(file(c, b))),
        Case::new("a_program_gets_arguments_and_input_and_answers", vec![OUTPUT], |c, b| Box::pin(program(c, b))),
    ]
}

/// The cases that are about one type, for all the others to leave out.
pub const OF_ONE_TYPE: &[&str] = &["a_file_holds_what_was_sent", "a_program_gets_arguments_and_input_and_answers"];

async fn unknown(c: &dyn Client, b: &str) -> Outcome {
    let Err(failure) = c.invoke_binding(b, "odd", "1", &[]).await else { return Err("it was performed".to_owned()) };
    let expected =
        format!("error invoking output binding {b}: binding {b} does not support operation odd. supported operations:");
    check(failure.text.contains(&expected), || failure.to_string())
}

async fn unnamed(c: &dyn Client, b: &str) -> Outcome {
    let Err(failure) = c.invoke_binding(b, "", "1", &[]).await else { return Err("it was performed".to_owned()) };
    check(failure.text.contains("operation field is missing from request"), || failure.to_string())
}

async fn missing(c: &dyn Client) -> Outcome {
    let Err(failure) = c.invoke_binding("other", "create", "1", &[]).await else { return Err("it exists".to_owned()) };
    let expected = "error invoking output binding other: couldn't find output binding other";
    check(failure.text.contains(expected), || failure.to_string())
}

async fn file(c: &dyn Client, b: &str) -> Outcome {
    let name = [("fileName", "suite/document.json")];
    let call = async |operation, data| {
        c.invoke_binding(b, operation, data, &name).await.map_err(|failure| failure.to_string())
    };
    let made = call("create", r#"{"a":[1,"two"]}"#).await?;
    check_eq("answer", String::from_utf8_lossy(&made).as_ref(), r#"{"fileName":"suite/document.json"}"#)?;
    let read = call("get", "null").await?;
    check_eq("content", String::from_utf8_lossy(&read).as_ref(), r#"{"a":[1,"two"]}"#)?;
    check_eq("answer", call("delete", "null").await?, Vec::new())?;
    check(call("get", "null").await.is_err(), || "it was read after it was deleted".to_owned())
}

async fn program(c: &dyn Client, b: &str) -> Outcome {
    let ran = c.invoke_binding(b, "execute", r#"{"a":1}"#, &[("args", "x,y")]).await;
    let ran = ran.map_err(|failure| failure.to_string())?;
    check_eq("output", String::from_utf8_lossy(&ran).as_ref(), "tool\0x\0y\0{\"a\":1}")
}
