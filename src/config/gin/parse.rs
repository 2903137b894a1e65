//! The subset of the gin language that configurations of models use.
//!
//! ```text
//! file      = { statement newline }                   comments run from # to the end of the line
//! statement = name "=" value | "import" module        name: macro, or dotted function.parameter
//! value     = int | float | True | False | None | string | %macro | @reference | list | tuple | dict
//! ```
//! Values may span lines inside brackets or after a backslash. Scopes (`a/b.c`) and `include` are refused.

use std::fmt;
use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

use crate::{Error, Result};

/// Deepest nesting of brackets; real files have two levels.
const MAX_DEPTH: usize = 32;

/// `name = value`.
pub(super) struct Statement {
    pub line: usize,
    pub name: String,
    pub value: Value,
}

/// A Python literal, or a name that gin resolves.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// A list or tuple.
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Macro(String),
    /// `@function` or `@function()`.
    Reference(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::None => f.write_str("None"),
            Value::Bool(flag) => f.write_str(if *flag { "True" } else { "False" }),
            Value::Int(int) => write!(f, "{int}"),
            Value::Float(float) => write!(f, "{float:?}"),
            Value::Text(text) => write!(f, "'{text}'"),
            Value::Macro(name) => write!(f, "%{name}"),
            Value::Reference(name) => write!(f, "@{name}"),
            Value::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Value::Dict(items) => {
                f.write_str("{")?;
                for (i, (key, value)) in items.iter().enumerate() {
                    write!(f, "{}{key}: {value}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// What was expected, and what was found.
type Wrong = (&'static str, String);

/// All statements of `text`, the contents of the file at `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Statement>> {
    let mut parser = Parser { chars: text.chars().peekable(), line: 1 };
    let mut statements = Vec::new();
    loop {
        parser.space(true);
        if parser.peek().is_none() {
            return Ok(statements);
        }
        let (line, name) = (parser.line, parser.name());
        let value = parser.statement(&name).map_err(|(expected, found)| Error::Config {
            path: path.to_path_buf(),
            line: parser.line,
            key: shortened(&name),
            expected: expected.to_string(),
            found: shortened(&found),
        })?;
        match value {
            Some(value) => statements.push(Statement { line, name, value }),
            None => log::warn!("config {}:{line}: `{name}` has no effect", path.display()),
        }
    }
}

struct Parser<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    /// Whether `wanted` comes next, which is then consumed.
    fn eat(&mut self, wanted: char) -> bool {
        let is_next = self.peek() == Some(wanted);
        if is_next {
            self.next();
        }
        is_next
    }

    fn while_some(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|&c| wanted(c)) {
            text.push(c);
            self.next();
        }
        text
    }

    /// Passes over blanks and comments, and over line ends too if `lines`.
    fn space(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                '#' => drop(self.while_some(|c| c != '\n')),
                '\n' if !lines => return,
                // A backslash continues the line.
                '\\' => {
                    self.next();
                    self.while_some(|c| c == '\r');
                    self.eat('\n');
                }
                c if c.is_whitespace() || c == '\u{feff}' => drop(self.next()),
                _ => return,
            }
        }
    }

    fn name(&mut self) -> String {
        self.while_some(|c| c.is_alphanumeric() || "_./".contains(c))
    }

    /// Line up to its end, for messages.
    fn rest(&mut self) -> String {
        match self.while_some(|c| c != '\n').trim() {
            "" => "the end of the line".to_string(),
            rest => format!("`{rest}`"),
        }
    }

    /// What follows `name`: its value, or `None` for an import.
    fn statement(&mut self, name: &str) -> Result<Option<Value>, Wrong> {
        self.space(false);
        let value = match name {
            "import" | "from" if self.peek() != Some('=') => {
                self.while_some(|c| c != '\n');
                return Ok(None);
            }
            "include" => {
                return Err(("one file with all parameters; copy the included file into this one", self.rest()));
            }
            name if name.contains('/') => return Err(("a name without a scope", name.to_string())),
            "" => return Err(("`function.parameter = value`", self.rest())),
            _ if !self.eat('=') => return Err(("`=` and a value after the name", self.rest())),
            _ => self.value(0)?,
        };
        self.space(false);
        if self.peek().is_none_or(|c| c == '\n') { Ok(Some(value)) } else { Err(("the end of the line", self.rest())) }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Wrong> {
        self.space(depth > 0);
        if depth > MAX_DEPTH {
            return Err(("brackets nested at most 32 deep", "more".to_string()));
        }
        match self.peek() {
            Some(quote @ ('"' | '\'')) => self.text(quote),
            Some('[') => self.items(']', |parser| parser.value(depth + 1)).map(Value::List),
            Some('(') => self.items(')', |parser| parser.value(depth + 1)).map(Value::List),
            Some('{') => self
                .items('}', |parser| {
                    let key = parser.value(depth + 1)?;
                    parser.space(true);
                    if !parser.eat(':') {
                        return Err(("`:` after the key of a dictionary", parser.rest()));
                    }
                    Ok((key, parser.value(depth + 1)?))
                })
                .map(Value::Dict),
            Some('%') => {
                self.next();
                Ok(Value::Macro(self.name()))
            }
            Some('@') => {
                self.next();
                let name = self.name();
                Ok(Value::Reference(name + &self.while_some(|c| c == '(' || c == ')')))
            }
            _ => self.word(),
        }
    }

    /// Comma-separated items up to the bracket `close`.
    fn items<T>(&mut self, close: char, item: impl Fn(&mut Self) -> Result<T, Wrong>) -> Result<Vec<T>, Wrong> {
        self.next();
        let mut items = Vec::new();
        loop {
            self.space(true);
            if self.eat(close) {
                return Ok(items);
            }
            items.push(item(self)?);
            self.space(true);
            if !self.eat(',') && self.peek() != Some(close) {
                return Err(("`,` or a closing bracket", self.rest()));
            }
        }
    }

    fn text(&mut self, quote: char) -> Result<Value, Wrong> {
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                Some(c) if c == quote => return Ok(Value::Text(text)),
                Some('\\') => match self.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some(c) => text.push(c),
                    None => return Err(("a closing quote", "the end of the file".to_string())),
                },
                None | Some('\n') => return Err(("a closing quote on the same line", format!("`{text}`"))),
                Some(c) => text.push(c),
            }
        }
    }

    /// A number, or one of Python's three words.
    fn word(&mut self) -> Result<Value, Wrong> {
        let word = self.while_some(|c| c.is_alphanumeric() || "_.+-".contains(c));
        let digits = word.replace('_', "");
        let wrong =
            ("a number, a string, True, False, None, a list, a tuple, a dictionary or %macro", format!("`{word}`"));
        match word.as_str() {
            "None" => Ok(Value::None),
            "True" => Ok(Value::Bool(true)),
            "False" => Ok(Value::Bool(false)),
            "" => Err((wrong.0, self.rest())),
            // Rust would also read `inf`, `nan` and `infinity`, which are no literals of Python.
            _ if !digits.contains(|c: char| c.is_ascii_digit()) => Err(wrong),
            _ => match (digits.parse(), digits.parse()) {
                (Ok(int), _) => Ok(Value::Int(int)),
                (_, Ok(float)) if digits.contains(['.', 'e', 'E']) => Ok(Value::Float(float)),
                _ => Err(wrong),
            },
        }
    }
}

/// `text`, cut to a length that fits in a message.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}
