//! recbole's `.inter` files, CSV files and plain `user item` lines: ids are kept where they are numbers.

use std::collections::HashMap;
use std::path::Path;

use super::super::catalog;
use super::super::lines::Lines;
use super::super::number;
use super::events::{TextEvents, read_text, sequences};
use super::layout::Layout;
use super::source::Source;
use super::{PreprocessOptions, PreprocessReport, Read};
use crate::{Error, Result};

/// `*.inter`, and the `.item` file of the same name if there is one.
pub(super) fn read_inter(source: &Source, options: &PreprocessOptions, report: &mut PreprocessReport) -> Result<Read> {
    let (mut text, stem) = source.main(".inter", |reader, path| {
        let mut lines = Lines::new(reader, path);
        let layout = Layout::of_recbole(&lines.header("a header")?).map_err(|what| lines.error(what))?;
        let uncompressed = path.extension().filter(|extension| *extension == "gz").map(|_| path.with_extension(""));
        let stem = uncompressed
            .as_deref()
            .unwrap_or(path)
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
        Ok((read_text(&mut lines, &layout, options, report)?, stem))
    })?;
    let items = &mut text.items;
    let listed = source.find(&format!("{stem}.item"), |reader, path| {
        let entries = catalog::read(reader, path)?;
        let mut lines = HashMap::new();
        let number = |entry: &catalog::Entry| {
            let number = items.number(&entry.id);
            match lines.insert(number, entry.line) {
                Some(before) => Err(duplicate(path, entry, before)),
                None => Ok(number),
            }
        };
        entries.iter().map(number).collect::<Result<Vec<u32>>>()
    })?;
    Ok(resolve(text, listed, report))
}

/// `user item` per line.
pub(super) fn read_txt(source: &Source, options: &PreprocessOptions, report: &mut PreprocessReport) -> Result<Read> {
    let text = source
        .main(".txt", |reader, path| read_text(&mut Lines::new(reader, path), &Layout::two(), options, report))?;
    Ok(resolve(text, None, report))
}

/// A CSV or TSV file with named columns.
pub(super) fn read_csv(source: &Source, options: &PreprocessOptions, report: &mut PreprocessReport) -> Result<Read> {
    let (text, has_timestamps) = source.main(".csv", |reader, path| {
        let mut lines = Lines::new(reader, path);
        let layout = Layout::of_csv(&lines.header("a header")?).map_err(|what| lines.error(what))?;
        Ok((read_text(&mut lines, &layout, options, report)?, layout.has_timestamps()))
    })?;
    if !has_timestamps {
        report.warn("no column of timestamps: the events of a user keep the order of the file".to_string());
    }
    Ok(resolve(text, None, report))
}

fn duplicate(path: &Path, entry: &catalog::Entry, before: u64) -> Error {
    let what = format!("item {} is already on line {before}", number::quoted(&entry.id));
    Error::Dataset { path: path.to_path_buf(), line: entry.line, what }
}

/// Puts final ids in the place of the interners' numbers; `listed` are the numbers of the list of items, in order.
fn resolve(text: TextEvents, listed: Option<Vec<u32>>, report: &mut PreprocessReport) -> Read {
    let TextEvents { users, items, mut events } = text;
    let (user_ids, users_recoded) = users.ids(i64::MAX);
    let (item_ids, items_recoded) = items.ids(i64::from(u32::MAX));
    (report.users_recoded, report.items_recoded) = (users_recoded, items_recoded);
    let item_id = |number: u32| item_ids[number as usize] as u32;
    for event in &mut events {
        event.user = user_ids[event.user as usize];
        event.item = item_id(event.item);
    }
    let numbers = listed.unwrap_or_else(|| {
        let mut numbers: Vec<u32> = (0..items.len() as u32).collect();
        numbers.sort_unstable_by_key(|&number| item_id(number));
        numbers
    });
    let mut read = Read { sequences: sequences(events), ..Read::default() };
    if users_recoded {
        let named = user_ids.iter().zip(users.texts()).map(|(&id, text)| (id, text.to_string()));
        read.original_users = named.collect();
    }
    if items_recoded {
        let texts = items.texts();
        read.original_items = numbers.iter().map(|&number| texts[number as usize].to_string()).collect();
    }
    read.item_ids = numbers.into_iter().map(item_id).collect();
    read
}
