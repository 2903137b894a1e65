//! Raw public data files to a [`Dataset`].
//!
//! The rules are those of the reference's `data/preprocessor.py`, with these deliberate differences:
//! - Events of one user at the same second keep the order of the file. The reference sorts with pandas' default
//!   quicksort, which leaves their order open.
//! - Users are written by ascending id. The reference shuffles them.
//! - `amzn-books` item ids are the reference's categorical code + 1, so that they start at 1 on disk too. Codes follow
//!   the ids sorted as strings; pandas may read purely numeric stretches of the file as numbers and then code otherwise.
//! - `users.dat` is not read: its columns (sex, age, ...) are used by no model.
//! - Counts that the reference asserts for the real files are warned about.

mod amazon;
mod events;
mod interner;
mod layout;
mod movielens;
mod recbole;
mod source;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use self::source::Source;
use super::number::are_milliseconds;
use super::{Dataset, Sequence};
use crate::error::Parameter;
use crate::names::names;
use crate::{Error, Result};

/// The public data sets, by the shape of their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RawFormat {
    /// `u.data` and `u.item`: user, item, rating and timestamp between tabs, items between bars.
    Ml100k,
    /// `ratings.dat` and `movies.dat`, fields separated by `::`.
    Ml1m,
    /// `ratings.csv` and `movies.csv` with headers.
    Ml20m,
    /// `ratings_Books.csv`: user, item, rating, timestamp without a header; items and users with fewer than 5
    /// events are dropped.
    AmznBooks,
    /// `*.inter` with typed headers, tab separated, and optionally `*.item` of the same name.
    Recbole,
    /// A CSV or TSV file with a header: a column of users and one of items, and perhaps one of ratings and one of
    /// timestamps. Ids may be any text.
    Csv,
    /// `user item` per line, each user's events in order, as SASRec publishes its data.
    Txt,
}

names!(RawFormat, Parameter::Format, {
    Csv: "csv",
    Ml100k: "ml-100k",
    Ml1m: "ml-1m",
    Ml20m: "ml-20m",
    AmznBooks: "amzn-books",
    Recbole: "recbole",
    Txt: "txt",
});

impl RawFormat {
    /// Names of its files, or what they end with: of the events, and of the items if there may be such a file.
    fn files(self) -> &'static [&'static str] {
        match self {
            RawFormat::Ml100k => &["u.data", "u.item"],
            RawFormat::Ml1m => &["ratings.dat", "movies.dat"],
            RawFormat::Ml20m => &["ratings.csv", "movies.csv"],
            RawFormat::AmznBooks => &["ratings_Books.csv"],
            RawFormat::Recbole => &[".inter", ".item"],
            RawFormat::Csv => &[".csv"],
            RawFormat::Txt => &[".txt"],
        }
    }
}

/// The files that [`preprocess`] would read.
///
/// # Errors
/// [`Error::Io`] if `input` is a folder that cannot be read.
pub fn raw_files(format: RawFormat, input: &Path) -> Result<Vec<PathBuf>> {
    source::files(input, format.files())
}

/// How [`preprocess`] reads.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct PreprocessOptions<'a> {
    /// Count malformed rows and go on, instead of stopping at the first. The list of items is always read strictly.
    pub skip_bad_lines: bool,
    /// Called with the number of lines read so far, every 65,536 lines and at the end.
    pub progress: Option<&'a dyn Fn(u64)>,
}

impl<'a> PreprocessOptions<'a> {
    /// Sets [`PreprocessOptions::skip_bad_lines`].
    #[must_use]
    pub fn with_skip_bad_lines(self, skip_bad_lines: bool) -> PreprocessOptions<'a> {
        PreprocessOptions { skip_bad_lines, ..self }
    }

    /// Sets [`PreprocessOptions::progress`].
    #[must_use]
    pub fn with_progress(self, progress: &'a dyn Fn(u64)) -> PreprocessOptions<'a> {
        PreprocessOptions { progress: Some(progress), ..self }
    }
}

/// What [`preprocess`] makes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Preprocessed {
    /// Users by ascending id, each one's events by time.
    pub dataset: Dataset,
    /// What can be retrieved. MovieLens: all movies in file order, rated or not; `amzn-books`: 1 to the number of items;
    /// recbole: its `.item` file; without such a file the items of the events, ascending.
    pub item_ids: Vec<u32>,
    /// What the raw data call each of `item_ids`, where items had to be numbered anew; else empty.
    pub original_items: Vec<String>,
    /// What was read and what was dropped.
    pub report: PreprocessReport,
}

/// Counts of one [`preprocess`] run; `Display` gives them as a few lines of text.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PreprocessReport {
    /// Well-formed rows.
    pub rows_read: u64,
    /// Malformed rows left out.
    pub bad_lines: u64,
    /// Why the first of them was left out, with its line.
    pub first_bad_line: Option<String>,
    /// Rows dropped because their item has fewer than 5 rows in the raw file.
    pub dropped_rare_items: u64,
    /// Further rows dropped because their user has fewer than 5 rows in the raw file.
    pub dropped_rare_users: u64,
    /// Further rows dropped because fewer than 5 rows of their user were left.
    pub dropped_short_users: u64,
    /// Distinct users in the raw file.
    pub users_before: usize,
    /// Users written.
    pub users_after: usize,
    /// Distinct items with events in the raw file.
    pub items_before: usize,
    /// Distinct items in the sequences written.
    pub items_after: usize,
    /// Length of the list of items. For `amzn-books` this is the reference's number of unique items, counted before
    /// the short users are dropped.
    pub items_listed: usize,
    /// Items that have events but are not in the list.
    pub items_unlisted: usize,
    /// Largest item id of the list and the sequences.
    pub max_item_id: u32,
    /// User ids were not all positive whole numbers and are numbered anew, in the order of their text.
    pub users_recoded: bool,
    /// The same for item ids.
    pub items_recoded: bool,
    /// Events of the shortest sequence.
    pub min_length: usize,
    /// Mean number of events.
    pub mean_length: f64,
    /// Events of the longest sequence.
    pub max_length: usize,
    /// What looks wrong without being an error.
    pub warnings: Vec<String>,
}

/// Reads the raw files of `format` from `input`: a zip archive (read in place, nothing is extracted), the folder of the
/// unpacked files or one around it, or the file of ratings itself with the others beside it.
///
/// Memory: 24 bytes per row, plus half of that while sorting, plus 16 per event of the result; formats whose ids
/// are text also hold every distinct id once.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read; [`Error::Dataset`] with file and line for a malformed row (unless
/// `skip_bad_lines`) or list of items, if a file is missing from `input`, or if no events are left.
pub fn preprocess(format: RawFormat, input: &Path, options: PreprocessOptions) -> Result<Preprocessed> {
    let source = Source::open(input)?;
    let mut report = PreprocessReport::default();
    let Read { sequences, item_ids, original_users, original_items } = match format {
        RawFormat::Csv => recbole::read_csv(&source, &options, &mut report),
        RawFormat::Ml100k => movielens::ML_100K.read(&source, &options, &mut report),
        RawFormat::Ml1m => movielens::ML_1M.read(&source, &options, &mut report),
        RawFormat::Ml20m => movielens::ML_20M.read(&source, &options, &mut report),
        RawFormat::AmznBooks => amazon::read(&source, &options, &mut report),
        RawFormat::Recbole => recbole::read_inter(&source, &options, &mut report),
        RawFormat::Txt => recbole::read_txt(&source, &options, &mut report),
    }
    .map_err(|error| with_other_format(error, format, &report))?;
    if sequences.is_empty() {
        let what = format!("no events left of {} rows read and {} malformed", report.rows_read, report.bad_lines);
        return Err(Error::Dataset { path: input.to_path_buf(), line: 0, what });
    }
    report.describe(&sequences, &item_ids);
    let dataset = Dataset { sequences, original_users };
    Ok(Preprocessed { dataset, item_ids, original_items, report })
}

/// Where the first line of the events is not of `format`, the file is probably of another one: says which reads most files.
fn with_other_format(mut error: Error, format: RawFormat, report: &PreprocessReport) -> Error {
    let names_columns = matches!(format, RawFormat::Csv | RawFormat::Recbole);
    match &mut error {
        Error::Dataset { line: 1, what, .. }
            if !names_columns && report.items_before == 0 && what.starts_with("expected") =>
        {
            what.push_str("; a file with a header that names its columns is read as the format `csv`");
        }
        _ => {}
    }
    error
}

/// What is read of raw files.
#[derive(Default)]
struct Read {
    sequences: Vec<Sequence>,
    item_ids: Vec<u32>,
    original_users: HashMap<i64, String>,
    original_items: Vec<String>,
}

impl PreprocessReport {
    fn describe(&mut self, sequences: &[Sequence], item_ids: &[u32]) {
        let lengths = || sequences.iter().map(Sequence::len);
        self.min_length = lengths().min().unwrap_or(0);
        self.max_length = lengths().max().unwrap_or(0);
        self.mean_length = lengths().sum::<usize>() as f64 / sequences.len() as f64;
        let listed: HashSet<u32> = item_ids.iter().copied().collect();
        let used: HashSet<u32> = sequences.iter().flat_map(|sequence| &sequence.item_ids).copied().collect();
        self.users_after = sequences.len();
        self.items_after = used.len();
        self.items_listed = item_ids.len();
        self.items_unlisted = used.difference(&listed).count();
        self.max_item_id = used.iter().chain(&listed).max().copied().unwrap_or(0);
        let milliseconds = sequences.iter().filter(|sequence| are_milliseconds(&sequence.timestamps)).count();
        if milliseconds > 0 {
            let what = "models expect seconds, not milliseconds";
            self.warn(format!("users with timestamps beyond the year 5000: {milliseconds}; {what}"));
        }
        if self.items_unlisted > 0 {
            self.warn(format!("{} items have events but are not in the list of items", self.items_unlisted));
        }
    }

    /// Compares with what the reference asserts for the real files.
    fn expect(&mut self, what: &str, expected: usize, found: usize) {
        if expected != found {
            self.warn(format!("expected {expected} {what} as in the published data set, found {found}"));
        }
    }

    fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }
}

impl fmt::Display for PreprocessReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rows read              {}", self.rows_read)?;
        writeln!(f, "malformed rows         {}", self.bad_lines)?;
        writeln!(f, "dropped, rare item     {}", self.dropped_rare_items)?;
        writeln!(f, "dropped, rare user     {}", self.dropped_rare_users)?;
        writeln!(f, "dropped, short user    {}", self.dropped_short_users)?;
        writeln!(f, "users before / after   {} / {}", self.users_before, self.users_after)?;
        writeln!(f, "items before / after   {} / {}", self.items_before, self.items_after)?;
        writeln!(f, "items listed           {} (largest id {})", self.items_listed, self.max_item_id)?;
        writeln!(f, "ids numbered anew      users {}, items {}", yes(self.users_recoded), yes(self.items_recoded))?;
        write!(f, "events per user        {} to {}, mean {:.2}", self.min_length, self.max_length, self.mean_length)?;
        self.first_bad_line.iter().try_for_each(|line| write!(f, "\nfirst malformed row    {line}"))?;
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning                {warning}"))
    }
}

fn yes(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}
