//! MovieLens 100K, 1M and 20M: ids are kept, nothing is filtered.

use std::collections::HashSet;
use std::io::BufRead;
use std::path::Path;

use super::super::catalog;
use super::super::lines::Lines;
use super::super::number::{item_id, user_id};
use super::events::{Event, read_rows, sequences};
use super::layout::{self, Layout};
use super::source::Source;
use super::{PreprocessOptions, PreprocessReport, Read};
use crate::Result;

/// What tells the two apart. The counts are those that the reference asserts.
pub(super) struct Movielens {
    ratings: &'static str,
    movies: &'static str,
    /// What stands between the fields; none: a header says it.
    separator: Option<&'static str>,
    rated_items: usize,
    max_item_id: usize,
}

pub(super) const ML_100K: Movielens =
    Movielens { ratings: "u.data", movies: "u.item", separator: Some("\t"), rated_items: 1682, max_item_id: 1682 };

pub(super) const ML_1M: Movielens = Movielens {
    ratings: "ratings.dat",
    movies: "movies.dat",
    separator: Some("::"),
    rated_items: 3706,
    max_item_id: 3952,
};

pub(super) const ML_20M: Movielens = Movielens {
    ratings: "ratings.csv",
    movies: "movies.csv",
    separator: None,
    rated_items: 26744,
    max_item_id: 131_262,
};

impl Movielens {
    pub fn read(&self, source: &Source, options: &PreprocessOptions, report: &mut PreprocessReport) -> Result<Read> {
        let events = source.main(self.ratings, |reader, path| self.events(reader, path, options, report))?;
        let mut rated: Vec<u32> = events.iter().map(|event| event.item).collect::<HashSet<_>>().into_iter().collect();
        rated.sort_unstable();
        let sequences = sequences(events);
        report.users_before = sequences.len();
        report.items_before = rated.len();
        report.expect("rated items", self.rated_items, rated.len());
        report.expect("as the largest item id", self.max_item_id, rated.last().map_or(0, |&id| id as usize));

        let listed =
            source.find(self.movies, |reader, path| catalog::unique_ids(&catalog::read(reader, path)?, path))?;
        let item_ids = listed.unwrap_or_else(|| {
            report.warn(format!("no `{}`: the list of items holds the rated ones only", self.movies));
            rated
        });
        Ok(Read { sequences, item_ids, ..Read::default() })
    }

    fn events(
        &self,
        reader: &mut dyn BufRead,
        path: &Path,
        options: &PreprocessOptions,
        report: &mut PreprocessReport,
    ) -> Result<Vec<Event>> {
        let mut lines = Lines::new(reader, path);
        let layout = self.separator.map_or_else(|| csv_layout(&mut lines), |separator| Ok(Layout::four(separator)))?;
        let mut events = Vec::new();
        read_rows(&mut lines, options, report, |line| {
            let row = layout.row(line)?;
            let (user, item) = (user_id(&row.user)?, item_id(&row.item, 0)?);
            events.push(Event { user, item, rating: row.rating, timestamp: row.timestamp });
            Ok(())
        })?;
        Ok(events)
    }
}

fn csv_layout(lines: &mut Lines) -> Result<Layout> {
    let header = lines.header("a header")?;
    let layout = Layout::of_csv(&header).map_err(|what| lines.error(what))?;
    match layout.missing() {
        Some(column) => Err(lines.error(layout::missing(column, "commas", &header))),
        None => Ok(layout),
    }
}
