//! JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it: templates were written for that.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Refuses to grow beyond a bound.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            return Err(io::Error::other("the value is too long as JSON"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// On one line: a space after each comma and colon.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// The value as JSON of at most `limit` bytes, on one line or indented.
pub(crate) fn dumps(
    value: &impl Serialize,
    indent: Option<usize>,
    limit: usize,
) -> Result<String, serde_json::Error> {
    let mut out = Bounded { bytes: Vec::new(), limit };
    match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut out, OneLine))?,
        Some(width) => {
            let spaces = " ".repeat(width.min(8));
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, formatter))?;
        }
    }
    Ok(String::from_utf8(out.bytes).expect("JSON is UTF-8"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = json!({"a": [1, "é<&'>"], "b": {}});
        assert_eq!(dumps(&value, None, 100).unwrap(), r#"{"a": [1, "é<&'>"], "b": {}}"#);
        assert_eq!(dumps(&json!({"a": [1]}), Some(2), 100).unwrap(), "{\n  \"a\": [\n    1\n  ]\n}");
        assert!(dumps(&value, None, 10).is_err());
    }
}
