//! String ids of items, and the numbers that stand for them.

use std::ffi::c_char;

use super::ffi::{RwStatus, guarded, optional_place, places, reference, text};
use super::searcher::RwSearcher;
use crate::Error;
use crate::index::id_of_string;

/// Whether ids of items are strings; false for null. Where functions take or return ids, these are numbers that stand for the
/// strings: `rw_id_of_string`, `rw_searcher_string_id`.
///
/// # Safety
/// `searcher` is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_has_string_ids(searcher: *const RwSearcher) -> bool {
    // SAFETY: the caller vouches for it.
    unsafe { searcher.as_ref() }.is_some_and(|searcher| searcher.searcher.index().has_string_ids())
}

/// Writes the string id of the item with the number `id` into `buffer` (size bytes), with a zero behind it. An item that is not,
/// or no longer, in the index is an error.
///
/// `needed`, unless null, becomes the number of bytes that this takes, the zero included, also where `size` is too small, which is
/// an error, and where it is 0, which only asks for this number.
///
/// # Safety
/// Pointers are null or point to what is described; the searcher is alive; `buffer` and `needed` do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_searcher_string_id(
    searcher: *const RwSearcher,
    id: u64,
    buffer: *mut c_char,
    size: usize,
    needed: *mut usize,
) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for all of them.
        let (searcher, buffer, needed) = unsafe {
            let buffer = places("buffer", buffer.cast::<u8>(), size)?;
            (reference("searcher", searcher)?, buffer, optional_place("needed", needed)?)
        };
        let index = searcher.searcher.index();
        if !index.has_string_ids() {
            return Err(Error::argument("searcher", "an index whose ids are strings", "one whose ids are numbers"));
        }
        let snapshot = index.snapshot();
        snapshot.check_files()?;
        let missing =
            || Error::argument("id", "that of an item in the index", format!("{id}, which is not, or no longer"));
        let string = snapshot.string_id(id).ok_or_else(missing)?;
        let bytes = string.bytes().chain([0]);
        let n_bytes = string.len() + 1;
        needed.map(|place| place.write(n_bytes));
        if (1..n_bytes).contains(&size) {
            return Err(Error::argument("size", format!("at least {n_bytes} bytes for this string id"), size));
        }
        buffer.iter_mut().zip(bytes).for_each(|(place, byte)| _ = place.write(byte));
        Ok(())
    })
}

/// The number that stands for a string id in every index of string ids, below 2^63; whether an index has such an item, says
/// `rw_searcher_contains`.
///
/// # Safety
/// `string` is null or ends with a zero; `id` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_id_of_string(string: *const c_char, id: *mut u64) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for both.
        let (string, id) = unsafe { (text("string", string)?, places("id", id, 1)?) };
        let string = string.ok_or_else(|| Error::argument("string", "a string id", "a null pointer"))?;
        id[0].write(id_of_string(string));
        Ok(())
    })
}
