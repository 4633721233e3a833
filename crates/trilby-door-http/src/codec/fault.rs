//! Where a text stops being JSON, in the words of Go's decoder. Only looked for when something else found that it does.

/// The first thing in `text` that does not fit. `None` if the text starts with a whole value.
pub(super) fn find(text: &[u8]) -> Option<String> {
    Scan { text, at: 0 }.value().err()
}

type Fit = Result<(), String>;

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    /// Scans one value. Containers are kept in a list and not on the stack, which a hostile text could exhaust.
    fn value(&mut self) -> Fit {
        let mut open = Vec::new();
        loop {
            let first = self.next_token()?;
            match first {
                b'{' if self.skip_token(b'}')? => {}
                b'{' => {
                    self.key()?;
                    open.push(b'{');
                    continue;
                }
                b'[' if self.skip_token(b']')? => {}
                b'[' => {
                    open.push(b'[');
                    continue;
                }
                scalar => self.scalar(scalar)?,
            }
            if !self.close(&mut open)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes the containers that end here. Whether another value follows.
    fn close(&mut self, open: &mut Vec<u8>) -> Result<bool, String> {
        while let Some(container) = open.last() {
            match (container, self.next_token()?) {
                (b'{', b',') => {
                    self.key()?;
                    return Ok(true);
                }
                (_, b',') => return Ok(true),
                (b'{', b'}') | (b'[', b']') => {
                    open.pop();
                }
                (b'{', other) => return unfit(other, "after object key:value pair"),
                (_, other) => return unfit(other, "after array element"),
            }
        }
        Ok(false)
    }

    fn key(&mut self) -> Fit {
        match self.next_token()? {
            b'"' => self.string()?,
            other => return unfit(other, "looking for beginning of object key string"),
        }
        match self.next_token()? {
            b':' => Ok(()),
            other => unfit(other, "after object key"),
        }
    }

    fn scalar(&mut self, first: u8) -> Fit {
        match first {
            b'"' => self.string(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' => {
                let digit = self.next()?;
                self.number(digit)
            }
            b'0'..=b'9' => self.number(first),
            other => unfit(other, "looking for beginning of value"),
        }
    }

    fn literal(&mut self, word: &str) -> Fit {
        for expected in word.bytes().skip(1) {
            let found = self.next()?;
            if found != expected {
                let context = format!("in literal {word} (expecting {:?})", char::from(expected));
                return unfit(found, &context);
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Fit {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let digit = self.next()?;
                            if !digit.is_ascii_hexdigit() {
                                return unfit(digit, "in \\u hexadecimal character escape");
                            }
                        }
                    }
                    other => return unfit(other, "in string escape code"),
                },
                control @ ..0x20 => return unfit(control, "in string literal"),
                _ => {}
            }
        }
    }

    fn number(&mut self, first: u8) -> Fit {
        match first {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            other => return unfit(other, "in numeric literal"),
        }
        if self.skip(b'.') {
            self.digits("after decimal point in numeric literal")?;
        }
        if self.skip(b'e') || self.skip(b'E') {
            let _sign = self.skip(b'+') || self.skip(b'-');
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    /// At least one digit.
    fn digits(&mut self, context: &str) -> Fit {
        let digit = self.next()?;
        if !digit.is_ascii_digit() {
            return unfit(digit, context);
        }
        self.skip_digits();
        Ok(())
    }

    fn skip_digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn skip_token(&mut self, byte: u8) -> Result<bool, String> {
        self.skip_space();
        if self.at == self.text.len() {
            return Err(unexpected_end());
        }
        Ok(self.skip(byte))
    }

    fn next_token(&mut self) -> Result<u8, String> {
        self.skip_space();
        self.next()
    }

    fn skip_space(&mut self) {
        while self.text.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Result<u8, String> {
        let byte = self.text.get(self.at).copied().ok_or_else(unexpected_end)?;
        self.at += 1;
        Ok(byte)
    }
}

fn unfit<T>(found: u8, context: &str) -> Result<T, String> {
    let found = match found {
        b'"' => "'\"'".to_owned(),
        other => format!("{:?}", char::from(other)),
    };
    Err(format!("invalid character {found} {context}"))
}

fn unexpected_end() -> String {
    "unexpected EOF".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named_as_go_names_them() {
        for (text, expect) in [
            ("x", "invalid character 'x' looking for beginning of value"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{1:2}", "invalid character '1' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair"),
            (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            (r#""\x""#, "invalid character 'x' in string escape code"),
            (r#""\u12g4""#, "invalid character 'g' in \\u hexadecimal character escape"),
            ("-a", "invalid character 'a' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("trap", "invalid character 'a' in literal true (expecting 'u')"),
            ("{\"a\":[{}, [], \"\\u00e9\", -1.5e+3, null", "unexpected EOF"),
            ("'", "invalid character '\\'' looking for beginning of value"),
        ] {
            assert_eq!(find(text.as_bytes()).as_deref(), Some(expect), "{text}");
        }
        assert_eq!(find(br#"{"a": [1, true, {"b": null}], "c": 0.5} rest"#), None);
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        assert_eq!(find("[".repeat(4 << 20).as_bytes()).as_deref(), Some("unexpected EOF"));
    }
}
