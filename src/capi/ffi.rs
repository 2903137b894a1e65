//! What every function does on its way in and out: check pointers, catch panics, remember errors.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{ptr, slice};

use crate::backend::QueryBatch;
use crate::tensor::Tensor;
use crate::token_embeddings::TokenEmbeddings;
use crate::{Error, Result};

/// How a call ended.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RwStatus {
    /// As it should.
    Ok = 0,
    /// An argument is null, out of its range, or of the wrong size.
    Argument = 1,
    /// A file cannot be read, is damaged, or does not fit the configuration.
    File = 2,
    /// There is no such device, it failed, or the work does not fit it.
    Device = 3,
    /// A bug of this library. The handles involved should be freed.
    Panic = 4,
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// What went wrong in the last call on this thread that failed; empty if none has. Valid until another call on this
/// thread fails.
#[unsafe(no_mangle)]
pub extern "C" fn rw_last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Version of this library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn rw_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Runs `body`; turns its error or panic into a status and words.
pub fn guarded(body: impl FnOnce() -> Result<()>) -> RwStatus {
    // Handles hold their changing state behind locks that tolerate a panic.
    let (status, words) = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return RwStatus::Ok,
        Ok(Err(error)) => (status_of(&error), error.to_string()),
        Err(panic) => (RwStatus::Panic, format!("panic: {}; please report this", words_of(panic.as_ref()))),
    };
    let words = CString::new(words.replace('\0', " ")).unwrap_or_default();
    // A thread that is being destroyed has nobody left to read it.
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = words);
    status
}

fn status_of(error: &Error) -> RwStatus {
    match error {
        Error::Argument { .. } => RwStatus::Argument,
        Error::NoDevice { .. } | Error::Limit { .. } | Error::OutOfMemory { .. } | Error::Device { .. } => {
            RwStatus::Device
        }
        _ => RwStatus::File,
    }
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}

/// `array` as a slice of `len` values.
///
/// # Safety
/// If `array` is not null, it points to `len` values that nobody writes during `'a`.
pub unsafe fn slice<'a, T>(name: &'static str, array: *const T, len: usize) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check::<T>(name, array, len)?;
    // SAFETY: not null, aligned, not too large; the caller vouches for the rest.
    Ok(unsafe { slice::from_raw_parts(array, len) })
}

/// `array` as `len` places to write to.
///
/// # Safety
/// If `array` is not null, it points to room for `len` values that nobody else touches during `'a`.
pub unsafe fn places<'a, T>(name: &'static str, array: *mut T, len: usize) -> Result<&'a mut [MaybeUninit<T>]> {
    if len == 0 {
        return Ok(&mut []);
    }
    check::<T>(name, array, len)?;
    // SAFETY: as in `slice`.
    Ok(unsafe { slice::from_raw_parts_mut(array.cast(), len) })
}

fn check<T>(name: &'static str, array: *const T, len: usize) -> Result<()> {
    if array.is_null() {
        return Err(Error::argument(name, format!("{len} values"), "a null pointer"));
    }
    if !array.is_aligned() {
        return Err(Error::argument(name, format!("a multiple of {} bytes as address", align_of::<T>()), "another"));
    }
    product(name, len, size_of::<T>()).map(|_| ())
}

/// `rows * columns`, where an array of so many values can exist.
pub fn product(name: &'static str, rows: usize, columns: usize) -> Result<usize> {
    let fits = rows.checked_mul(columns).filter(|&bytes| bytes <= isize::MAX as usize);
    fits.ok_or_else(|| Error::argument(name, "a size that fits the address space", format!("{rows} * {columns}")))
}

/// What a pointer that must not be null points to.
///
/// # Safety
/// If `pointer` is not null, it points to a `T` that lives, and is not written, during `'a`.
pub unsafe fn reference<'a, T>(name: &'static str, pointer: *const T) -> Result<&'a T> {
    // SAFETY: the caller vouches for it.
    let found = unsafe { slice(name, pointer, 1) }?;
    Ok(&found[0])
}

/// What a pointer that may be null points to.
///
/// # Safety
/// As [`reference`].
pub unsafe fn optional<'a, T>(name: &'static str, pointer: *const T) -> Result<Option<&'a T>> {
    // SAFETY: the caller vouches for it.
    if pointer.is_null() { Ok(None) } else { unsafe { reference(name, pointer) }.map(Some) }
}

/// A text, or `None` for null.
///
/// # Safety
/// If `text` is not null, it points to bytes that end with a zero and are not written during `'a`.
pub unsafe fn text<'a>(name: &'static str, text: *const c_char) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller vouches for it.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| Error::argument(name, "UTF-8", text.to_string_lossy()))
}

/// A (rows, columns) array as a tensor.
///
/// # Safety
/// As [`slice`].
pub unsafe fn matrix(name: &'static str, values: *const f32, rows: usize, columns: usize) -> Result<Tensor> {
    // SAFETY: the caller vouches for it.
    let values = unsafe { slice(name, values, product(name, rows, columns)?) }?;
    Tensor::new(vec![rows, columns], values.to_vec())
}

/// Queries with these raw embeddings (n_queries, dim), of these users unless it is null.
///
/// # Safety
/// As [`slice`].
pub unsafe fn queries(
    embeddings: *const f32,
    n_queries: usize,
    dim: usize,
    user_ids: *const i64,
) -> Result<QueryBatch> {
    // SAFETY: the caller vouches for both.
    unsafe {
        let batch = QueryBatch::new(matrix("queries", embeddings, n_queries, dim)?);
        Ok(if user_ids.is_null() { batch } else { batch.with_users(slice("user ids", user_ids, n_queries)?) })
    }
}

/// Queries of several token embeddings each: `embeddings` (T, dim), `lengths` (n_queries) of them for each query, one after
/// the other.
///
/// # Safety
/// As [`slice`].
pub unsafe fn token_queries(
    embeddings: *const f32,
    lengths: *const usize,
    n_queries: usize,
    dim: usize,
) -> Result<QueryBatch> {
    // SAFETY: the caller vouches for it.
    let lengths = unsafe { slice("token lengths", lengths, n_queries) }?;
    let sum = lengths.iter().try_fold(0usize, |sum, &length| sum.checked_add(length));
    let too_many = || Error::argument("token lengths", "a sum that fits the address space", "a larger one");
    // SAFETY: the caller vouches for it.
    let vectors = unsafe { matrix("token embeddings", embeddings, sum.ok_or_else(too_many)?, dim) }?;
    TokenEmbeddings::new(vectors, lengths).map(QueryBatch::of_tokens)
}

/// A place to write to that may be null.
///
/// # Safety
/// As [`places`].
pub unsafe fn optional_place<'a, T>(name: &'static str, place: *mut T) -> Result<Option<&'a mut MaybeUninit<T>>> {
    // SAFETY: the caller vouches for it.
    if place.is_null() { Ok(None) } else { unsafe { places(name, place, 1) }.map(|places| places.first_mut()) }
}

/// Hands a new handle to the caller.
///
/// # Safety
/// If `out` is not null, a pointer can be written to it.
pub unsafe fn hand_out<T>(out: *mut *mut T, make: impl FnOnce() -> Result<T>) -> Result<()> {
    // SAFETY: the caller vouches for it.
    let out = unsafe { places("out", out, 1) }?;
    out[0].write(ptr::null_mut());
    out[0].write(Box::into_raw(Box::new(make()?)));
    Ok(())
}

/// Releases what [`hand_out`] handed out.
///
/// # Safety
/// `handle` is null, or came from [`hand_out`] and has not been released.
pub unsafe fn release<T>(handle: *mut T) {
    guarded(|| {
        if !handle.is_null() {
            // SAFETY: the caller vouches for it.
            drop(unsafe { Box::from_raw(handle) });
        }
        Ok(())
    });
}
