//! Reading everything.

use std::ops::Range;
use std::path::Path;

use super::Folder;
use crate::attributes::Condition;
use crate::backend::select;
use crate::context::Cancel;
use crate::index::{OpenOptions, Segment, unique};
use crate::model::InputRange;
use crate::store::{Damage, RESTORE, Report, Store};
use crate::tables::Table;
use crate::tensor::Tensor;
use crate::token_embeddings::TokenEmbeddings;
use crate::{Error, Result};

/// Checksums first: they tell every damaged file. What passes them and is wrong all the same was written so.
pub(super) fn verify(path: &Path) -> Result<Report> {
    let mut report = Store::verify(path)?;
    if report.is_sound()
        && let Err(error) = check_content(path)
    {
        report.damage.push(match error {
            Error::Index { path, what, .. } => Damage { path, what },
            other => Damage { path: path.to_path_buf(), what: other.to_string() },
        });
    }
    Ok(report)
}

fn check_content(path: &Path) -> Result<()> {
    let store = Store::open(path)?;
    let folder = Folder::new(store, OpenOptions { check: true, device_memory: None })?;
    let blueprint = folder.blueprint()?;
    let segments = folder.segments(&blueprint, &[select::open("cpu")?], None)?;
    segments.iter().try_for_each(|segment| can_be_scored(segment, &blueprint.range))?;
    segments.iter().try_for_each(has_attributes)?;
    folder.model()?;
    unique::check(segments.iter())
}

/// Whether adding the items of a segment would be refused; older versions of this crate took all that were finite.
fn can_be_scored(segment: &Segment, range: &InputRange) -> Result<()> {
    const CHUNK: usize = 4096;
    // Rounding may have made numbers larger than they were when they came in.
    let halved = |table: &Table, rows: Range<usize>| {
        let (n, width) = (rows.len(), table.width());
        Tensor::trusted(vec![n, width], table.read_rows(rows).into_iter().map(|x| x / 2.0).collect())
    };
    if let Some(table) = &segment.tables().tokens {
        return segment.ids().iter().enumerate().try_for_each(|(position, &id)| {
            let rows = table.rows_of(position);
            let tokens = TokenEmbeddings::new(halved(table.vectors(), rows.clone()), &[rows.len()])?;
            range.check_items(&[id], &tokens.means(), Some(&tokens))
        });
    }
    for (chunk, ids) in segment.ids().chunks(CHUNK).enumerate() {
        let rows = halved(&segment.tables().raw, chunk * CHUNK..chunk * CHUNK + ids.len());
        range.check_items(ids, &rows, None)?;
    }
    Ok(())
}

/// Whether the attributes of a segment, if it has some, are those of its items. Programs without SQLite cannot tell.
fn has_attributes(segment: &Segment) -> Result<()> {
    let Some(attributes) = segment.attributes().filter(|_| cfg!(feature = "attributes")) else { return Ok(()) };
    let all = attributes.matching(&Condition::new("id IS NOT NULL")?, &Cancel::new())?.len();
    match (all == segment.len() as u64, &attributes.file) {
        (false, Some(file)) => {
            let what = format!("expected attributes of {} items, found {all}", segment.len());
            Err(Error::index(file.path(), what, RESTORE))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use super::super::content::{Content, SegmentEntry};
    use super::super::{begin, segment_file};
    use super::*;
    use crate::index::build::Blueprint;
    use crate::index::{IndexOptions, ItemIndex};

    #[test]
    fn items_that_were_stored_though_they_cannot_be_scored_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let cpu = select::open("cpu").unwrap();
        let range = Arc::new(InputRange::new(None, 2));
        let blueprint = Blueprint::new(IndexOptions::default(), None, range, 3).unwrap();
        let rows = vec![1.0, 0.0, 0.0, 1.0, 1e25, -1e25];
        let mut tables = blueprint.empty_tables().unwrap();
        tables.append(&rows, None);
        let transaction = begin(folder.path()).unwrap();
        let mut content = Content::new(&blueprint);
        let file = segment_file::write(&transaction, (&[3, 5, 8], None), &tables).unwrap();
        content.segments.push(SegmentEntry { file, items: 3, deleted: None, attributes: None });
        transaction.commit(content.to_value(folder.path()).unwrap()).unwrap();

        let damage = verify(folder.path()).unwrap().damage;
        assert!(damage.len() == 1 && damage[0].what.contains("id 8"), "{damage:?}");
        let index = ItemIndex::open(folder.path(), &[cpu], OpenOptions::default()).unwrap();
        index.remove(&[8]).unwrap();
        index.compact().unwrap();
        assert!(verify(folder.path()).unwrap().is_sound());
    }
}
