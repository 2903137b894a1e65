//! Typed look-up of gin parameters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::parse::{Statement, Value, shortened};
use crate::{Error, Result};

/// Longest file, and most text that its macros may become; real files have some kilobytes.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// Deepest nesting of brackets and macros together; real files have two or three levels.
const MAX_DEPTH: usize = 64;

/// The parameters of one file, macros resolved.
pub(super) struct Bindings {
    path: PathBuf,
    /// Value and line by `function.parameter`; of two bindings the later counts, as in gin.
    values: BTreeMap<String, (Value, usize)>,
    asked: BTreeSet<&'static str>,
    skipped: Vec<&'static str>,
}

impl Bindings {
    /// Sorts the statements of the file at `path` into macros and parameters.
    pub fn new(path: &Path, statements: &[Statement]) -> Result<Bindings> {
        let macros = statements.iter().filter(|s| !s.name.contains('.')).map(|s| (s.name.as_str(), &s.value)).collect();
        let mut resolver = Resolver { macros, room: MAX_BYTES };
        let mut values = BTreeMap::new();
        for statement in statements.iter().filter(|s| s.name.contains('.')) {
            let value = resolver.resolve(&statement.value, 0).map_err(|(expected, found)| Error::Config {
                path: path.to_path_buf(),
                line: statement.line,
                key: shortened(&statement.name),
                expected,
                found: shortened(&found),
            })?;
            // gin accepts the module path in front of a function: only the last two names matter.
            let start = statement.name.rmatch_indices('.').nth(1).map_or(0, |(dot, _)| dot + 1);
            values.insert(statement.name[start..].to_string(), (value, statement.line));
        }
        Ok(Bindings { path: path.to_path_buf(), values, asked: BTreeSet::new(), skipped: Vec::new() })
    }

    /// An error at the line that binds `key`, or line 0 if none does.
    pub fn error(&self, key: &str, expected: &str, found: String) -> Error {
        let line = self.values.get(key).map_or(0, |(_, line)| *line);
        let (path, key, expected) = (self.path.clone(), key.to_string(), expected.to_string());
        Error::Config { path, line, key, expected, found: shortened(&found) }
    }

    fn ask(&mut self, key: &'static str) -> Option<Value> {
        self.asked.insert(key);
        self.values.get(key).map(|(value, _)| value.clone())
    }

    /// The value of `key` through `read`, or `default`; without either the key is missing.
    fn get<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        default: Option<T>,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        match (self.ask(key), default) {
            (Some(value), _) => read(&value).ok_or_else(|| self.error(key, expected, value.to_string())),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.error(key, expected, "nothing: the parameter is required".to_string())),
        }
    }

    /// A count, 0 or more.
    pub fn size(&mut self, key: &'static str, default: Option<usize>) -> Result<usize> {
        self.get(key, "a non-negative integer", default, as_size)
    }

    /// A hidden width, where anything below 1 stands for "no hidden layer".
    pub fn hidden(&mut self, key: &'static str) -> Result<Option<usize>> {
        self.get(key, "an integer; below 1 for no hidden layer", None, |value| match value {
            Value::Int(int) => Some(usize::try_from(*int).ok().filter(|&size| size > 0)),
            _ => None,
        })
    }

    /// A list of counts; `None` is the empty list.
    pub fn sizes(&mut self, key: &'static str) -> Result<Vec<usize>> {
        self.get(key, "a list of non-negative integers, or None", Some(Vec::new()), |value| match value {
            Value::None => Some(Vec::new()),
            Value::List(items) => items.iter().map(as_size).collect(),
            _ => None,
        })
    }

    pub fn number(&mut self, key: &'static str, default: Option<f32>) -> Result<f32> {
        self.get(key, "a number", default, as_number)
    }

    /// The numbers of a dictionary under some names; 0 under a name that it does not have.
    pub fn weights<const N: usize>(&mut self, key: &'static str, names: [&str; N]) -> Result<[f32; N]> {
        let expected = format!("a dictionary of numbers under {}", names.map(|name| format!("'{name}'")).join(", "));
        self.get(key, &expected, Some([0.0; N]), |value| {
            let Value::Dict(items) = value else { return None };
            let mut weights = [0.0; N];
            for (name, weight) in items {
                let Value::Text(name) = name else { return None };
                weights[names.iter().position(|known| known == name)?] = as_number(weight)?;
            }
            Some(weights)
        })
    }

    pub fn flag(&mut self, key: &'static str, default: bool) -> Result<bool> {
        self.get(key, "True or False", Some(default), as_flag)
    }

    /// One of the named `choices`. An empty `default` makes the key required.
    pub fn choice<T: Copy>(&mut self, key: &'static str, default: &str, choices: &[(&str, T)]) -> Result<T> {
        let find = |name: &str| choices.iter().find(|choice| choice.0 == name).map(|choice| choice.1);
        let names: Vec<String> = choices.iter().map(|choice| format!("'{}'", choice.0)).collect();
        self.get(key, &names.join(" or "), find(default), |value| match value {
            Value::Text(name) => find(name),
            _ => None,
        })
    }

    /// Insists that `key`, if bound, is the one supported value.
    pub fn only(&mut self, key: &'static str, supported: &str) -> Result<()> {
        self.choice(key, supported, &[(supported, ())])
    }

    /// As [`Bindings::only`], for a flag.
    pub fn only_flag(&mut self, key: &'static str, supported: bool) -> Result<()> {
        let expected = if supported { "True, all that is supported" } else { "False, all that is supported" };
        self.get(key, expected, Some(supported), |value| as_flag(value).filter(|flag| *flag == supported)).map(|_| ())
    }

    /// Marks a parameter that another one has made irrelevant.
    pub fn skip_parameter(&mut self, key: &'static str) {
        self.asked.insert(key);
    }

    /// Marks all parameters of a function that is not in use.
    pub fn skip_function(&mut self, function: &'static str) {
        self.skipped.push(function);
    }

    /// Logs that `key`, bound somewhere, `does` something that is not to be expected.
    pub fn warn(&self, key: &str, does: &str) {
        let line = self.values.get(key).map_or(0, |(_, line)| *line);
        log::warn!("config {}:{line}: `{key}` {does}", self.path.display());
    }

    /// Logs every parameter that nobody asked for and that is not among the `ignored` ones of a function.
    pub fn warn_of_unknown(&self, ignored: &[(&str, &str)]) {
        for (key, (_, line)) in &self.values {
            let (function, parameter) = key.split_once('.').unwrap_or((key, ""));
            let is_ignored = |(of, names): &(&str, &str)| *of == function && names.split(' ').any(|n| n == parameter);
            let is_known = self.asked.contains(key.as_str()) || self.skipped.contains(&function);
            if !is_known && !ignored.iter().any(is_ignored) {
                log::warn!("config {}:{line}: `{key}` is unknown and has no effect", self.path.display());
            }
        }
    }
}

fn as_size(value: &Value) -> Option<usize> {
    match value {
        Value::Int(int) => usize::try_from(*int).ok(),
        _ => None,
    }
}

fn as_number(value: &Value) -> Option<f32> {
    match value {
        Value::Int(int) => Some(*int as f32),
        Value::Float(float) => Some(*float as f32),
        _ => None,
    }
}

fn as_flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        _ => None,
    }
}

/// Puts the values of macros in their places.
struct Resolver<'a> {
    macros: BTreeMap<&'a str, &'a Value>,
    /// How much may still be made, as text: a few macros in one another could otherwise fill any memory.
    room: usize,
}

impl Resolver<'_> {
    /// `value` without macros; `Err` says what was expected and what was found.
    fn resolve(&mut self, value: &Value, depth: usize) -> Result<Value, (String, String)> {
        if depth > MAX_DEPTH {
            let expected =
                format!("brackets and macros nested at most {MAX_DEPTH} deep, and no macro that is defined by itself");
            return Err((expected, value.to_string()));
        }
        let length = match value {
            Value::Text(text) | Value::Reference(text) => text.len() + 1,
            _ => 1,
        };
        self.room = self
            .room
            .checked_sub(length)
            .ok_or_else(|| (format!("at most {MAX_BYTES} bytes with all macros written out"), "more".to_string()))?;
        Ok(match value {
            Value::Macro(name) => match self.macros.get(name.as_str()) {
                Some(value) => self.resolve(value, depth + 1)?,
                None => return Err(("a macro that is defined".to_string(), format!("%{name}"))),
            },
            Value::List(items) => {
                Value::List(items.iter().map(|item| self.resolve(item, depth + 1)).collect::<Result<_, _>>()?)
            }
            Value::Dict(items) => {
                let mut resolved = Vec::with_capacity(items.len());
                for (key, value) in items {
                    resolved.push((self.resolve(key, depth + 1)?, self.resolve(value, depth + 1)?));
                }
                Value::Dict(resolved)
            }
            plain => plain.clone(),
        })
    }
}
