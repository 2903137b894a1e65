//! Events in a compact table, and their grouping into sequences.

use std::result::Result as Outcome;

use super::super::Sequence;
use super::super::lines::{Lines, Tally};
use super::PreprocessOptions;
use super::PreprocessReport;
use super::interner::Interner;
use super::layout::Layout;
use crate::Result;

/// One row of 24 bytes.
#[derive(Clone, Copy)]
pub(super) struct Event {
    pub user: i64,
    pub timestamp: i64,
    pub item: u32,
    pub rating: f32,
}

/// Users by ascending id, each one's events by time; at equal times in the order given (the sort is stable).
pub(super) fn sequences(mut events: Vec<Event>) -> Vec<Sequence> {
    events.sort_by_key(|event| (event.user, event.timestamp));
    let users = events.chunk_by(|a, b| a.user == b.user);
    let sequence = |events: &[Event]| Sequence {
        user_id: events[0].user,
        item_ids: events.iter().map(|event| event.item).collect(),
        ratings: events.iter().map(|event| event.rating).collect(),
        timestamps: events.iter().map(|event| event.timestamp).collect(),
    };
    users.map(sequence).collect()
}

/// Gives every remaining line to `row`, with the policy and the progress of `options`.
pub(super) fn read_rows(
    lines: &mut Lines,
    options: &PreprocessOptions,
    report: &mut PreprocessReport,
    mut row: impl FnMut(&str) -> Outcome<(), String>,
) -> Result<()> {
    let progress = |lines| options.progress.iter().for_each(|progress| progress(lines));
    let mut tally = Tally::default();
    while lines.row(options.skip_bad_lines, &mut tally, &mut row)? {
        if lines.number().is_multiple_of(1 << 16) {
            progress(lines.number());
        }
    }
    progress(lines.number());
    (report.rows_read, report.bad_lines, report.first_bad_line) = (tally.good, tally.bad, tally.first_bad);
    Ok(())
}

/// Events whose ids are text: `user` and `item` are numbers of the interners.
pub(super) struct TextEvents {
    pub users: Interner,
    pub items: Interner,
    pub events: Vec<Event>,
}

/// Reads all rows of a file with ids of any kind.
pub(super) fn read_text(
    lines: &mut Lines,
    layout: &Layout,
    options: &PreprocessOptions,
    report: &mut PreprocessReport,
) -> Result<TextEvents> {
    let (mut users, mut items, mut events) = (Interner::default(), Interner::default(), Vec::new());
    read_rows(lines, options, report, |line| {
        let row = layout.row(line)?;
        let user = i64::from(users.number(&row.user));
        events.push(Event { user, item: items.number(&row.item), rating: row.rating, timestamp: row.timestamp });
        Ok(())
    })?;
    report.users_before = users.len();
    report.items_before = items.len();
    Ok(TextEvents { users, items, events })
}
