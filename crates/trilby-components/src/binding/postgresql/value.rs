//! A cell of a result as JSON. Numbers keep all their digits, times are RFC 3339, bytes are base64.

use std::{error::Error, fmt::Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp, civil};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio_postgres::types::{FromSql, Kind, Type};
use uuid::Uuid;

type BoxError = Box<dyn Error + Sync + Send>;

/// PostgreSQL counts from the year 2000.
const EPOCH_SECONDS: i64 = 946_684_800;

/// One cell.
pub(super) struct Cell(pub(super) Box<RawValue>);

impl<'a> FromSql<'a> for Cell {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, BoxError> {
        match kind.kind() {
            Kind::Array(_) => {
                let items: Vec<Option<Self>> = Vec::from_sql(kind, raw)?;
                let items: Vec<_> = items.into_iter().map(|item| item.map(|cell| cell.0)).collect();
                json(&items)
            }
            Kind::Domain(inner) => Self::from_sql(inner, raw),
            Kind::Enum(_) => json(&std::str::from_utf8(raw)?),
            _ => simple(kind, raw),
        }
    }

    fn from_sql_null(_: &Type) -> Result<Self, BoxError> {
        json(&())
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn json(value: &impl Serialize) -> Result<Cell, BoxError> {
    Ok(Cell(to_raw_value(value)?))
}

fn simple(kind: &Type, raw: &[u8]) -> Result<Cell, BoxError> {
    match *kind {
        Type::BOOL => json(&bool::from_sql(kind, raw)?),
        Type::INT2 => json(&i16::from_sql(kind, raw)?),
        Type::INT4 => json(&i32::from_sql(kind, raw)?),
        Type::INT8 => json(&i64::from_sql(kind, raw)?),
        Type::OID => json(&u32::from_sql(kind, raw)?),
        Type::FLOAT4 => float(f32::from_sql(kind, raw)?, f32::is_finite),
        Type::FLOAT8 => float(f64::from_sql(kind, raw)?, f64::is_finite),
        Type::NUMERIC => numeric(raw),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::XML | Type::CHAR => {
            json(&std::str::from_utf8(raw)?)
        }
        Type::BYTEA => json(&STANDARD.encode(raw)),
        Type::JSON => document(raw),
        Type::JSONB => document(raw.strip_prefix(&[1]).ok_or("JSONB of an unknown version")?),
        Type::UUID => json(&Uuid::from_slice(raw)?.to_string()),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => match i64::from_sql(kind, raw)? {
            i64::MAX => json(&"infinity"),
            i64::MIN => json(&"-infinity"),
            micros => json(&timestamp(SignedDuration::from_micros(micros))?.to_string()),
        },
        Type::DATE => match i32::from_sql(kind, raw)? {
            i32::MAX => json(&"infinity"),
            i32::MIN => json(&"-infinity"),
            days => json(&timestamp(SignedDuration::from_hours(i64::from(days) * 24))?.to_string()),
        },
        Type::TIME => {
            let since_midnight = SignedDuration::from_micros(i64::from_sql(kind, raw)?);
            json(&civil::Time::midnight().checked_add(since_midnight)?.to_string())
        }
        Type::VOID => json(&()),
        _ => Err(format!("type {kind} cannot be told as JSON; cast it to text in the statement").into()),
    }
}

fn float<F: Serialize + ToString + Copy>(number: F, is_finite: impl Fn(F) -> bool) -> Result<Cell, BoxError> {
    // JSON has no word for the others.
    if is_finite(number) { json(&number) } else { json(&number.to_string()) }
}

fn document(text: &[u8]) -> Result<Cell, BoxError> {
    Ok(Cell(RawValue::from_string(std::str::from_utf8(text)?.to_owned())?))
}

fn timestamp(since_epoch: SignedDuration) -> Result<Timestamp, BoxError> {
    Ok(Timestamp::from_second(EPOCH_SECONDS)?.checked_add(since_epoch)?)
}

/// A decimal number: a count of digits to the base of 10,000, the weight of the first, a sign, and how many decimals
/// are shown.
fn numeric(raw: &[u8]) -> Result<Cell, BoxError> {
    let words: Vec<_> = raw.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let [_count, weight, sign, scale, digits @ ..] = &*words else { return Err("numeric is cut short".into()) };
    let mut text = String::new();
    match sign {
        0 => {}
        0x4000 => text.push('-'),
        0xC000 => return json(&"NaN"),
        0xD000 => return json(&"infinity"),
        0xF000 => return json(&"-infinity"),
        other => return Err(format!("numeric has the unknown sign {other:#x}").into()),
    }
    let weight = weight.cast_signed();
    // The group of four digits at a power of 10,000; those that are not sent are zero.
    let group = |power: i16| {
        usize::try_from(i32::from(weight) - i32::from(power)).ok().and_then(|at| digits.get(at)).copied().unwrap_or(0)
    };
    let _ = write!(text, "{}", group(weight.max(0)));
    for power in (0..weight.max(0)).rev() {
        let _ = write!(text, "{:04}", group(power));
    }
    if *scale > 0 {
        text.push('.');
        let whole = text.len();
        let mut power = -1;
        while text.len() - whole < usize::from(*scale) {
            let _ = write!(text, "{:04}", group(power));
            power -= 1;
        }
        text.truncate(whole + usize::from(*scale));
    }
    Ok(Cell(RawValue::from_string(text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &Type, raw: &[u8], expect: &str) {
        assert_eq!(Cell::from_sql(kind, raw).expect("readable").0.get(), expect, "{kind}");
    }

    #[test]
    fn cells_are_told_as_json() {
        check(&Type::INT8, &(-5_i64).to_be_bytes(), "-5");
        check(&Type::FLOAT8, &f64::NAN.to_be_bytes(), "\"NaN\"");
        check(&Type::TEXT, "a\"b".as_bytes(), r#""a\"b""#);
        check(&Type::BYTEA, b"hi", "\"aGk=\"");
        check(&Type::JSONB, b"\x01{\"a\": 1.50}", "{\"a\": 1.50}");
        check(&Type::TIMESTAMPTZ, &1_500_000_i64.to_be_bytes(), "\"2000-01-01T00:00:01.5Z\"");
        check(&Type::TIMESTAMP, &i64::MAX.to_be_bytes(), "\"infinity\"");
        check(&Type::DATE, &(-1_i32).to_be_bytes(), "\"1999-12-31T00:00:00Z\"");
        check(&Type::TIME, &3_600_000_000_i64.to_be_bytes(), "\"01:00:00\"");
        assert!(Cell::from_sql(&Type::POINT, &[0; 16]).err().expect("no JSON").to_string().contains("cast it to text"));
    }

    #[test]
    fn decimal_numbers_keep_all_their_digits() {
        for (words, expect) in [
            (&[0, 0, 0, 0][..], "0"),
            (&[0, 0, 0, 2], "0.00"),
            (&[1, 0, 0x4000, 0, 7], "-7"),
            (&[2, 0, 0, 3, 12, 3450], "12.345"),
            (&[3, 2, 0, 0, 1, 2, 3], "100020003"),
            (&[1, 2, 0, 0, 5], "500000000"),
            (&[1, 0xFFFF, 0, 4, 120], "0.0120"),
            (&[1, 0xFFFE, 0, 8, 1], "0.00000001"),
            (&[0, 0, 0xC000, 0], "\"NaN\""),
        ] {
            let raw: Vec<_> = words.iter().flat_map(|word: &u16| word.to_be_bytes()).collect();
            check(&Type::NUMERIC, &raw, expect);
        }
    }
}
