//! Conditions in CEL, the expression language of routing rules and circuit breakers.

use std::sync::{Arc, LazyLock};

use cel::{Context, Env, Program};

pub(crate) use cel::Value;

/// The functions of CEL's standard environment. Operators go by names that no letter begins.
const FUNCTIONS: &[&str] = &[
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
];

/// The standard functions and types: a constant that is too large to make for each condition.
static STANDARD: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// An expression that is true or false.
#[derive(Debug)]
pub(crate) struct Condition {
    source: String,
    program: Program,
}

impl Condition {
    /// Reads an expression.
    ///
    /// # Errors
    /// A text for people: where the syntax is wrong, or which function there is not.
    pub(crate) fn parse(source: &str) -> Result<Self, String> {
        let program = Program::compile(source).map_err(|errors| {
            let first = errors.errors.into_iter().next();
            first.map_or_else(String::new, |error| format!("{} at {}:{}", error.msg.trim(), error.pos.0, error.pos.1))
        })?;
        let references = program.references();
        let is_unknown = |name: &&&str| name.starts_with(char::is_alphabetic) && !FUNCTIONS.contains(name);
        if let Some(name) = references.functions().iter().find(is_unknown) {
            return Err(format!("undeclared reference to '{name}' (in container '')"));
        }
        Ok(Self { source: source.to_owned(), program })
    }

    /// Whether the expression is true of these variables.
    ///
    /// # Errors
    /// A text for people, if it cannot be computed or is neither true nor false.
    pub(crate) fn holds<'a>(&self, variables: impl IntoIterator<Item = (&'a str, Value)>) -> Result<bool, String> {
        let mut context = Context::with_env(Arc::clone(&STANDARD));
        for (name, value) in variables {
            context.add_variable_from_value(name, value);
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err(format!("the result of match expression {} was not a boolean", self.source)),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_kinds_are_compared() {
        for (source, expect) in [
            ("n > 5", true),
            ("n == 6", true),
            ("n >= 6.0 && n < 7", true),
            ("n in [1, 6]", true),
            ("n == 7 || s.startsWith('ab')", true),
            ("s.matches('^a.c$')", true),
            ("has(m.a)", false),
            ("size(s) == 3", true),
            ("!(s == 'abc')", false),
            ("timestamp('2026-01-02T03:04:05Z').getFullYear() == 2026", true),
        ] {
            let condition = Condition::parse(source).expect(source);
            let map = Value::Map(std::collections::HashMap::<String, Value>::new().into());
            let variables = [("n", Value::Float(6.0)), ("s", Value::from("abc")), ("m", map)];
            assert_eq!(condition.holds(variables), Ok(expect), "{source}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_at_once() {
        for (source, expect) in [
            ("n >", "Syntax error"),
            ("n = 5", "Syntax error"),
            ("frobnicate(n)", "undeclared reference to 'frobnicate' (in container '')"),
            (&"(".repeat(50_000), ""),
        ] {
            let error = Condition::parse(source).expect_err(source);
            assert!(error.starts_with(expect), "{error}");
        }
    }

    #[test]
    fn a_condition_that_cannot_be_computed_says_why() {
        let condition = Condition::parse("n + 1").expect("an expression");
        let error = condition.holds([("n", Value::Int(1))]).expect_err("a number");
        assert_eq!(error, "the result of match expression n + 1 was not a boolean");
        let error = condition.holds([]).expect_err("no such variable");
        assert_eq!(error, "Undeclared reference to 'n'");
    }
}
