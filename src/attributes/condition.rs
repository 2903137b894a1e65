//! Conditions on attributes.

use std::str::FromStr;

use super::Value;
use crate::error::Parameter;
use crate::{Error, Result};

/// Longest condition, in bytes, its parameters included.
const LONGEST: usize = 65_536;

/// What items must meet to be found: an SQL expression over their attributes, as it stands behind `WHERE` in SQLite, and values of
/// its parameters `?1`, `?2`, ...
///
/// Columns, numbers, texts between single quotes, the operators of SQLite with `LIKE`, `GLOB`, `IN`, `BETWEEN`, `IS NULL` and `CASE`,
/// and its plain functions of numbers and texts; no subqueries. An item whose value is missing (`NULL`) meets no comparison.
///
/// ```
/// use rails_wgpu::Condition;
///
/// # fn main() -> rails_wgpu::Result<()> {
/// let condition = Condition::new("year >= ?1 AND genre = ?2")?.with_params([1990.into(), "Comedy".into()]);
/// # let _ = condition;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    sql: String,
    params: Vec<Value>,
}

impl Condition {
    /// The condition `sql`. Whether it suits an index is found out by the first search.
    ///
    /// # Errors
    /// If it is empty, too long, or no single expression: with a parenthesis or a quote too many or too few, or a semicolon.
    pub fn new(sql: impl Into<String>) -> Result<Condition> {
        let sql = sql.into();
        if sql.len() > LONGEST {
            return Err(Error::argument(Parameter::Condition, format!("up to {LONGEST} bytes"), sql.len()));
        }
        match fault(&sql) {
            None => Ok(Condition { sql, params: Vec::new() }),
            Some(found) => {
                let expected = "one SQL expression, such as \"year >= 1990 AND genre = 'Comedy'\"";
                Err(Error::argument(Parameter::Condition, expected, found))
            }
        }
    }

    /// Values of its parameters, in their order: no value of a text can change what the condition means.
    #[must_use]
    pub fn with_params(self, params: impl IntoIterator<Item = Value>) -> Condition {
        Condition { params: params.into_iter().collect(), ..self }
    }

    /// The expression.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The expression, or its beginning, for people.
    pub(crate) fn shown(&self) -> String {
        const LONGEST: usize = 120;
        match self.sql.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("`{}...`", &self.sql[..end]),
            None => format!("`{}`", self.sql),
        }
    }

    /// Whether it is short enough with its parameters.
    ///
    /// # Errors
    /// If not.
    pub(super) fn check_size(&self) -> Result<()> {
        let bytes = |param: &Value| match param {
            Value::Text(text) => text.len(),
            _ => size_of::<Value>(),
        };
        let found = self.sql.len() + self.params.iter().map(bytes).sum::<usize>();
        if found > LONGEST {
            let expected = format!("up to {LONGEST} bytes with its parameters");
            return Err(Error::argument(Parameter::Condition, expected, found));
        }
        Ok(())
    }

    /// Values of its parameters.
    pub fn params(&self) -> &[Value] {
        &self.params
    }
}

impl FromStr for Condition {
    type Err = Error;

    /// [`Condition::new`].
    fn from_str(sql: &str) -> Result<Condition> {
        Condition::new(sql)
    }
}

/// Why `sql` would not stay between the parentheses that it is put into, if it would not.
fn fault(sql: &str) -> Option<String> {
    let (mut depth, mut is_empty, mut rest) = (0usize, true, sql);
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let closing = match c {
            '\'' | '"' | '`' => Some(c),
            '[' => Some(']'),
            _ => None,
        };
        is_empty &= c.is_whitespace() || rest.starts_with("--") || rest.starts_with("/*");
        rest = match (c, closing) {
            ('\0', _) => return Some("a zero byte".to_string()),
            // Two quotes that stand for one are read as two texts here, which end at the same place.
            (_, Some(closing)) => match after.split_once(closing) {
                Some((_, after)) => after,
                None => return Some(format!("a {c} without its {closing}")),
            },
            ('-', _) if after.starts_with('-') => after.split_once('\n').map_or("", |(_, after)| after),
            ('/', _) if after.starts_with('*') => match after[1..].split_once("*/") {
                Some((_, after)) => after,
                None => return Some("a comment without its end".to_string()),
            },
            // SQLite takes `$a(...)` for one name, whatever stands between.
            ('$' | '@' | ':' | '#', _) => {
                return Some(format!(
                    "a {c}: parameters are `?1`, `?2`, ..., and names with it stand between double quotes"
                ));
            }
            (';', _) => return Some("a semicolon, which ends an expression".to_string()),
            ('(', _) => {
                depth += 1;
                after
            }
            (')', _) if depth == 0 => return Some("a closing parenthesis too many".to_string()),
            (')', _) => {
                depth -= 1;
                after
            }
            _ => after,
        };
    }
    match (is_empty, depth) {
        (true, _) => Some("nothing".to_string()),
        (false, 0) => None,
        (false, _) => Some("an opening parenthesis too many".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_leave_its_parentheses_is_refused() {
        let cases = [
            ("", "nothing"),
            (" -- year > 3", "nothing"),
            ("1); DROP TABLE items; --", "closing parenthesis too many"),
            ("1) OR (1", "closing parenthesis too many"),
            ("(1", "opening parenthesis too many"),
            ("1; DROP TABLE items", "semicolon"),
            ("genre = 'Comedy", "' without its '"),
            ("\"genre = 1", "\" without its \""),
            ("[genre = 1", "[ without its ]"),
            ("1 /* ) ", "comment without its end"),
            ("1 \0", "zero byte"),
            // One name and two parentheses in SQLite; a text between parentheses if names are plain words.
            ("1=$a(') ) LIMIT (1 --')", "a $: parameters are `?1`"),
            ("1=@a(') ) LIMIT (1 --')", "a @"),
            ("1=:a(') ) LIMIT (1 --')", "a :"),
            ("1=#a(') ) LIMIT (1 --')", "a #"),
        ];
        for (sql, word) in cases {
            let error = Condition::new(sql).map_or_else(|error| error.to_string(), |_| String::new());
            assert!(error.contains("condition: expected one SQL expression") && error.contains(word), "{sql}: {error}");
        }
        let long = "1 AND ".repeat(12_000) + "1";
        assert!(Condition::new(long).is_err_and(|error| error.to_string().contains("up to 65536 bytes")));
    }

    #[test]
    fn what_stays_between_them_is_taken() {
        for sql in [
            "genre = ');--'",
            "genre = 'it''s ('",
            "(year > 3) AND (\"a)\" < 2) -- ) ;",
            "year /* ; ) */ > 3",
            "[a;b] = `c)`",
            "\"a$(\" = ':@#'",
            "1",
        ] {
            assert!(Condition::new(sql).is_ok(), "{sql}");
        }
    }
}
