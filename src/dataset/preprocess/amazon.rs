//! Amazon ratings: rare items and users are dropped, text ids become categorical codes.

use std::collections::HashSet;

use super::super::lines::Lines;
use super::events::{TextEvents, read_text, sequences};
use super::layout::Layout;
use super::source::Source;
use super::{PreprocessOptions, PreprocessReport, Read};
use crate::Result;

/// Users and items need this many rows.
const FEWEST: usize = 5;

/// Number of items of the published Books data, as the reference asserts.
const BOOKS: usize = 695_762;

/// In the order of the reference: both counts are taken of the raw file, rows are dropped, the rest is coded, and then
/// users that have become too short are dropped without coding anew. User ids are codes (from 0), item ids code + 1.
pub(super) fn read(source: &Source, options: &PreprocessOptions, report: &mut PreprocessReport) -> Result<Read> {
    let TextEvents { users, items, mut events } = source.main("ratings_Books.csv", |reader, path| {
        read_text(&mut Lines::new(reader, path), &Layout::four(","), options, report)
    })?;
    let (mut user_rows, mut item_rows) = (vec![0; users.len()], vec![0; items.len()]);
    for event in &events {
        user_rows[event.user as usize] += 1;
        item_rows[event.item as usize] += 1;
    }
    let (mut user_kept, mut item_kept) = (vec![false; users.len()], vec![false; items.len()]);
    events.retain(|event| {
        let (user, item) = (event.user as usize, event.item as usize);
        let (rare_item, rare_user) = (item_rows[item] < FEWEST, user_rows[user] < FEWEST);
        report.dropped_rare_items += u64::from(rare_item);
        report.dropped_rare_users += u64::from(rare_user && !rare_item);
        let kept = !rare_item && !rare_user;
        user_kept[user] |= kept;
        item_kept[item] |= kept;
        kept
    });
    let user_codes = users.ranks(|user| user_kept[user as usize]);
    let item_codes = items.ranks(|item| item_kept[item as usize]);
    for event in &mut events {
        event.user = i64::from(user_codes[event.user as usize]);
        event.item = item_codes[event.item as usize] + 1;
    }
    (report.users_recoded, report.items_recoded) = (true, true);

    let mut sequences = sequences(events);
    sequences.retain(|sequence| {
        let short = sequence.len() < FEWEST;
        report.dropped_short_users += if short { sequence.len() as u64 } else { 0 };
        !short
    });
    let item_ids: Vec<u32> = (1..).take(item_kept.iter().filter(|&&kept| kept).count()).collect();
    report.expect("items", BOOKS, item_ids.len());
    let kept = sequences.iter().map(|sequence| sequence.user_id).collect::<HashSet<_>>();
    let coded = user_codes.iter().zip(users.texts()).zip(&user_kept).filter(|(_, kept)| **kept);
    let original_users = coded
        .map(|((&code, text), _)| (i64::from(code), text.to_string()))
        .filter(|(id, _)| kept.contains(id))
        .collect();
    let mut original_items = vec![String::new(); item_ids.len()];
    for ((&code, text), _) in item_codes.iter().zip(items.texts()).zip(&item_kept).filter(|(_, kept)| **kept) {
        original_items[code as usize] = text.to_string();
    }
    Ok(Read { sequences, item_ids, original_users, original_items })
}
