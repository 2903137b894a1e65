//! Tables of attributes in SQLite: made, read, and asked for the items that meet a condition.
//!
//! A database has one table, `items (id, ...)`, whose row `n` is the item at position `n` of a segment. Who opens one does not trust it:
//! neither its schema, which must be the one that is written here, nor the condition, which may read columns and call plain functions,
//! within limits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql, params_from_iter};

use super::attribute_table::{Failure, Schema};
use super::item_attributes::LONGEST_TEXT;
use super::{Column, Condition, Value};
use crate::context::Cancel;
use crate::error::Parameter;
use crate::{Error, Result};

const TABLE: &str = "items";

/// How long a condition may take in one segment.
const TIME_LIMIT: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 20_000 });

/// Instructions of SQLite between two looks at the clock.
const INSTRUCTIONS: i32 = 100;

/// What a condition may call: functions of numbers and texts that take time and memory in proportion to their arguments. None can be
/// interrupted: `instr` and `trim` with two arguments could take hours. Patterns of `like` and `glob` are short.
const FUNCTIONS: [&str; 19] = [
    "abs",
    "coalesce",
    "glob",
    "ifnull",
    "iif",
    "length",
    "like",
    "lower",
    "max",
    "min",
    "nullif",
    "round",
    "sign",
    "substr",
    "substring",
    "typeof",
    "unicode",
    "upper",
    "if",
];

/// What a condition can be as large as. Parsing is recursive: SQLite's own limit of the depth is 1000. The SQL of a table of as many
/// columns as there may be, with the longest names, is about 140,000 bytes.
const LIMITS: [(Limit, i32); 7] = [
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 1 << 18),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 500),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 1),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 64),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 256),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 1000),
];

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Integer(value) => ValueRef::Integer(*value),
            Value::Real(value) => ValueRef::Real(*value),
            Value::Text(value) => ValueRef::Text(value.as_bytes()),
        }))
    }
}

impl Schema {
    /// The statement that makes the table.
    fn statement(&self) -> String {
        let quoted = |column: &Column| format!(", \"{}\" {}", column.name, column.kind);
        let columns: String = self.columns.iter().map(quoted).collect();
        format!("CREATE TABLE {TABLE} (id {} NOT NULL{columns})", if self.string_ids { "TEXT" } else { "INTEGER" })
    }

    fn insert(&self) -> String {
        format!("INSERT INTO {TABLE} (rowid, id{}) VALUES (?{})", self.names(), ", ?".repeat(self.columns.len() + 1))
    }

    fn names(&self) -> String {
        self.columns.iter().map(|column| format!(", \"{}\"", column.name)).collect()
    }

    /// A database whose row `n` has the values that `row` fills in for `n`: its id, then one per column.
    ///
    /// # Errors
    /// Those of `row`, or if there are too many bytes.
    pub(super) fn database(
        &self,
        n: usize,
        mut row: impl FnMut(usize, &mut Vec<Value>) -> Result<()>,
    ) -> Result<Vec<u8>> {
        let mut wrong = None;
        let mut made = || -> rusqlite::Result<Vec<u8>> {
            let mut connection = Connection::open_in_memory()?;
            let transaction = connection.transaction()?;
            transaction.execute(&self.statement(), [])?;
            let mut insert = transaction.prepare(&self.insert())?;
            let mut values = Vec::new();
            for position in 0..n {
                values.clear();
                values.push(Value::Integer(position as i64));
                if let Err(error) = row(position, &mut values) {
                    wrong = Some(error);
                    return Ok(Vec::new());
                }
                insert.execute(params_from_iter(&values))?;
            }
            drop(insert);
            transaction.commit()?;
            Ok(connection.serialize("main")?.to_vec())
        };
        let made = made().map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::TooBig | ErrorCode::OutOfMemory | ErrorCode::DiskFull) => {
                let expected = "databases of less than 2 GiB for each segment (build with fewer `segment_items`)";
                Error::argument(Parameter::Attributes, expected, format!("{n} items with more"))
            }
            _ => Error::argument(Parameter::Attributes, "values that SQLite stores", error),
        });
        wrong.map_or(made, Err)
    }

    /// A database of rows of others: for each row the number of its source, and the row there.
    pub(super) fn merged(&self, sources: &[&[u8]], rows: &[(usize, usize)]) -> Result<Vec<u8>, Failure> {
        let connections = sources.iter().map(|source| self.open(source)).collect::<Result<Vec<_>, _>>()?;
        let select = format!("SELECT id{} FROM {TABLE} WHERE rowid = ?1", self.names());
        let statements = connections.iter().map(|connection| connection.prepare(&select));
        let mut statements = statements.collect::<rusqlite::Result<Vec<_>>>().map_err(damaged)?;
        let mut failed = None;
        let made = self.database(rows.len(), |position, values| {
            let (source, row) = rows[position];
            let width = self.columns.len() + 1;
            let read = statements[source].query_row([row as i64], |found| {
                (0..width).try_for_each(|column| {
                    values.push(value(found.get_ref(column)?));
                    Ok(())
                })
            });
            read.map_err(|error| {
                failed = Some(damaged(error));
                Error::Cancelled
            })
        });
        match failed {
            Some(failure) => Err(failure),
            None => made.map_err(Failure::Other),
        }
    }

    /// The rows that meet `condition`; `cancel` ends the work.
    pub(super) fn matching(
        &self,
        database: &[u8],
        condition: &Condition,
        cancel: &Cancel,
    ) -> Result<RoaringBitmap, Failure> {
        let mut connection = self.open(database)?;
        let refused = Arc::new(Mutex::new(None));
        let (reasons, watched, started) = (refused.clone(), cancel.clone(), Instant::now());
        let mut gate = Gate::default();
        let authorize = move |context: AuthContext<'_>| match gate.refuses(context.action) {
            None => Authorization::Allow,
            Some(reason) => {
                reasons.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
                Authorization::Deny
            }
        };
        let ended = move || watched.is_cancelled() || started.elapsed() > TIME_LIMIT;
        // A condition may hold many texts at a time.
        let limited = connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LONGEST_TEXT as i32);
        let guarded = limited.and_then(|_| connection.authorizer(Some(authorize)));
        guarded.and_then(|()| connection.progress_handler(INSTRUCTIONS, Some(ended))).map_err(damaged)?;

        // The line end ends a comment.
        let sql = format!("SELECT rowid FROM {TABLE} WHERE (\n{}\n)", condition.sql());
        let reason = || refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
            _ if cancel.is_cancelled() => Failure::Other(Error::Cancelled),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => damaged(error),
            Some(ErrorCode::OperationInterrupted) => {
                let expected = format!("a condition that takes less than {} s in a segment", TIME_LIMIT.as_secs_f32());
                Failure::Other(Error::argument(Parameter::Condition, expected, condition.shown()))
            }
            _ => {
                let found = reason().unwrap_or_else(|| message(&error));
                Failure::Other(self.wrong(format!("{found} in {}", condition.shown())))
            }
        };
        let mut statement = connection.prepare(&sql).map_err(failed)?;
        let (wanted, given) = (statement.parameter_count(), condition.params().len());
        if wanted != given {
            let expected = format!("{wanted} parameters for {}", condition.shown());
            return Err(Failure::Other(Error::argument(Parameter::Condition, expected, given)));
        }
        let mut rows = statement.query(params_from_iter(condition.params())).map_err(failed)?;
        let mut matching = RoaringBitmap::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let row = row.get::<_, i64>(0).map_err(damaged)?;
            let position = u32::try_from(row).map_err(|_| Failure::Damaged(format!("it has a row {row}")))?;
            matching.insert(position);
        }
        Ok(matching)
    }

    /// What SQLite says of a condition that is not one over these columns.
    fn wrong(&self, found: String) -> Error {
        let id = if self.string_ids { "id TEXT" } else { "id INTEGER" };
        let expected = format!("an SQL expression over the columns {id}, {}", Column::list(&self.columns));
        Error::argument(Parameter::Condition, expected, found)
    }

    /// A database in memory, which nothing can be written to.
    fn open(&self, database: &[u8]) -> Result<Connection, Failure> {
        let open = || -> rusqlite::Result<(Connection, Vec<String>)> {
            let mut connection = Connection::open_in_memory()?;
            connection.deserialize_read_exact("main", database, database.len(), true)?;
            for (setting, on) in [
                (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
                (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
                // An unknown column between double quotes would be a text.
                (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
                (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
                // A statement is prepared once, whatever its parameters are.
                (DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true),
            ] {
                connection.set_db_config(setting, on)?;
            }
            // A long list of `IN` would be written to a file.
            connection.pragma_update(None, "temp_store", "MEMORY")?;
            for (limit, most) in LIMITS {
                connection.set_limit(limit, most)?;
            }
            let mut statement = connection.prepare("SELECT sql FROM sqlite_schema LIMIT 2")?;
            let found = statement.query_map([], |row| row.get::<_, Option<String>>(0))?;
            let found = found.map(|sql| sql.map(Option::unwrap_or_default)).collect::<rusqlite::Result<Vec<_>>>()?;
            drop(statement);
            Ok((connection, found))
        };
        let (connection, found) = open().map_err(damaged)?;
        match found == [self.statement()] {
            true => Ok(connection),
            false => {
                let found = found.first().map_or("no table", String::as_str).to_string();
                Err(Failure::Damaged(format!("expected `{}`, found {found}", self.statement())))
            }
        }
    }
}

/// What a condition has asked for so far.
#[derive(Default)]
struct Gate {
    /// Of the statement around the condition: one is its own.
    selects: u32,
    rows: u32,
}

impl Gate {
    /// Why `action` is none of a condition, if it is none.
    fn refuses(&mut self, action: AuthAction) -> Option<String> {
        match action {
            AuthAction::Select => {
                self.selects += 1;
                (self.selects > 1).then(|| "a subquery".to_string())
            }
            AuthAction::Read { table_name, column_name } => {
                self.rows += u32::from(column_name.eq_ignore_ascii_case("rowid"));
                let is_own = table_name == TABLE && self.rows <= 1;
                (!is_own).then(|| format!("`{column_name}` of `{table_name}`"))
            }
            AuthAction::Function { function_name } => {
                let is_known = FUNCTIONS.iter().any(|known| known.eq_ignore_ascii_case(function_name));
                (!is_known).then(|| format!("the function `{function_name}`; there are {}", FUNCTIONS.join(", ")))
            }
            _ => Some("something else".to_string()),
        }
    }
}

fn value(value: ValueRef) -> Value {
    match value {
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Real(value) => Value::Real(value),
        ValueRef::Text(value) => Value::Text(String::from_utf8_lossy(value).into_owned()),
        ValueRef::Null | ValueRef::Blob(_) => Value::Null,
    }
}

fn damaged(error: rusqlite::Error) -> Failure {
    Failure::Damaged(message(&error))
}

/// What SQLite says, without the statement around a condition.
fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::super::ColumnType;
    use super::*;

    fn schema() -> Schema {
        let columns = [("year", ColumnType::Integer), ("score", ColumnType::Real), ("genre", ColumnType::Text)];
        let columns = columns.map(|(name, kind)| Column::new(name, kind).unwrap());
        Schema { columns: columns.into(), string_ids: false }
    }

    /// Items 10, 11, ... of the years 1990, 1991, ..., every fourth without anything.
    fn database(n: usize, genre: &str) -> Vec<u8> {
        let row = |position: usize, values: &mut Vec<Value>| {
            values.push((10 + position as i64).into());
            values.extend(match position % 4 {
                3 => [Value::Null, Value::Null, Value::Null],
                _ => [(1990 + position as i64).into(), (position as f64 / 2.0).into(), genre.into()],
            });
            Ok(())
        };
        schema().database(n, row).unwrap()
    }

    fn matching(database: &[u8], condition: &Condition) -> Result<Vec<u32>, String> {
        match schema().matching(database, condition, &Cancel::new()) {
            Ok(found) => Ok(found.into_iter().collect()),
            Err(Failure::Damaged(what)) => Err(format!("damaged: {what}")),
            Err(Failure::Other(error)) => Err(error.to_string()),
        }
    }

    fn found(sql: &str) -> Result<Vec<u32>, String> {
        matching(&database(8, "Comedy"), &Condition::new(sql).unwrap())
    }

    #[test]
    fn conditions_find_what_meets_them() {
        assert_eq!(found("year >= 1994").unwrap(), [4, 5, 6]);
        assert_eq!(found("YEAR between 1991 and 1994 and genre = 'Comedy'").unwrap(), [1, 2, 4]);
        assert_eq!(found("genre is null or \"score\" = 0.5").unwrap(), [1, 3, 7]);
        assert_eq!(found("not year < 1995").unwrap(), [5, 6], "what is not known is not true");
        assert_eq!(found("id in (10, 17) -- these").unwrap(), [0, 7]);
        assert_eq!(found("lower(genre) like 'com%' and case when year > 1992 then 1 end").unwrap(), [4, 5, 6]);
        let bound = Condition::new("genre = ?1 and year > ?2").unwrap();
        let params = |text: &str| [Value::from(text), 1994.into()];
        assert_eq!(
            matching(&database(8, "a' or 1 --"), &bound.clone().with_params(params("a' or 1 --"))).unwrap(),
            [5, 6]
        );
        assert_eq!(matching(&database(8, "Comedy"), &bound.with_params(params("x' or '1' = '1"))).unwrap(), [0; 0]);
    }

    #[test]
    fn what_is_no_condition_over_the_columns_is_refused() {
        let cases = [
            (
                "yeer > 1990",
                "over the columns id INTEGER, year INTEGER, score REAL, genre TEXT, found no such column: yeer",
            ),
            ("\"yeer\" > 1990", "no such column"),
            ("year >", "syntax error"),
            ("id in (select id from items)", "a subquery"),
            ("exists (with recursive n(x) as (select 1 union all select x + 1 from n) select x from n)", "compound"),
            ("(select name from sqlite_schema) = 'items'", "`name` of `sqlite_master`"),
            ("rowid = 1", "`ROWID` of `items`"),
            ("year in sqlite_schema", "found"),
            ("load_extension('x')", "the function `load_extension`"),
            ("random() > 0", "the function `random`"),
            ("length(zeroblob(100000000)) > 0", "the function `zeroblob`"),
            ("instr(genre, 'a')", "the function `instr`"),
            ("trim(genre, 'a') = ''", "the function `trim`"),
            ("genre regexp 'a'", "function"),
            ("genre match 'a'", "function"),
            ("count(*) > 1", "count"),
            ("min(year) > 1", "aggregate"),
            ("row_number() over () > 1", "found"),
            ("raise(abort, 'x')", "found"),
            ("year = ?1", "1 parameters"),
        ];
        let mut wrong = Vec::new();
        for (sql, word) in cases {
            let error = found(sql).expect_err(sql);
            if !(error.starts_with("condition: expected ") && error.contains(word)) {
                wrong.push(format!("{sql}: {error}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let deep = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
        assert!(found(&deep).unwrap_err().starts_with("condition: "), "deep parentheses");
        let deep = vec!["year = 1"; 700].join(" or ");
        let error = found(&deep).unwrap_err();
        assert!(error.contains("maximum depth 500") && error.len() < 400, "{error}");
        let pattern = format!("genre like '{}'", "%a".repeat(300));
        assert!(found(&pattern).unwrap_err().contains("too complex"), "{}", found(&pattern).unwrap_err());
    }

    #[test]
    fn a_condition_without_an_end_is_ended() {
        let database = database(3000, &"a".repeat(1000));
        let slow = format!("genre like '{}b'", "%a".repeat(120));
        let endless = Condition::new(vec![slow; 200].join(" or ")).unwrap();
        let error = matching(&database, &endless).unwrap_err();
        assert!(error.contains("a condition that takes less than 0.5 s"), "{error}");
        let cancel = Cancel::new();
        cancel.cancel();
        let ended = schema().matching(&database, &endless, &cancel);
        assert!(matches!(ended, Err(Failure::Other(Error::Cancelled))));
    }

    #[test]
    fn other_databases_are_refused() {
        let made = |sql: &str| {
            let mut connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(sql).unwrap();
            connection.serialize("main").unwrap().to_vec()
        };
        let own = schema().statement();
        let cases = [
            (made("CREATE TABLE items (id INTEGER NOT NULL)"), "expected `CREATE TABLE items"),
            (
                made("CREATE TABLE t (x); CREATE VIEW items AS SELECT x AS id, x AS year FROM t"),
                "expected `CREATE TABLE",
            ),
            (made(&format!("{own}; CREATE TABLE more (x)")), "expected `CREATE TABLE"),
            (made(""), "found no table"),
            (vec![7; 4096], "not a database"),
            (database(500, "Comedy")[..4096].to_vec(), "malformed"),
        ];
        for (database, word) in cases {
            let error = matching(&database, &Condition::new("year > 0").unwrap()).unwrap_err();
            assert!(error.starts_with("damaged: ") && error.contains(word), "{word}: {error}");
        }
        assert_eq!(matching(&made(&own), &Condition::new("1").unwrap()).unwrap(), [0; 0]);
    }

    #[test]
    fn merged_rows_are_those_of_their_sources() {
        let (one, other) = (database(4, "Comedy"), database(8, "Drama"));
        let merged = schema().merged(&[&one, &other], &[(0, 1), (1, 1), (1, 3), (1, 5)]).map_err(|_| ()).unwrap();
        let found = |sql: &str| matching(&merged, &Condition::new(sql).unwrap()).unwrap();
        assert_eq!((found("genre = 'Drama'"), found("score = 0.5")), (vec![1, 3], vec![0, 1]));
        assert_eq!((found("id = 13 and year is null"), found("year = 1995")), (vec![2], vec![3]));
        let damaged = schema().merged(&[&one, &other[..4096]], &[(0, 1)]);
        assert!(matches!(damaged, Err(Failure::Damaged(_))));
    }
}
