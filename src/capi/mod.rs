//! Functions for C and everything that can call C. `rails_wgpu.h`, beside this file, is generated from it.
//!
//! Every function that can fail returns an [`RwStatus`], and its words are in [`rw_last_error`]. Handles are opaque, may
//! be used by any number of threads at once, and are released by their `_free` function, which accepts null. Panics
//! do not leave the library. Text is UTF-8, ended by a zero. Arrays are row-major; where a length is 0, the pointer is
//! not looked at.

#![allow(
    unsafe_code,
    reason = "pointers from C; each use is checked for null, alignment and size, and says what it relies on"
)]

mod device;
mod ffi;
mod items;
mod model;
mod options;
mod search;
mod searcher;
mod string_ids;

pub use device::{RwDeviceInfo, RwDevices, rw_devices_free, rw_devices_get, rw_devices_len, rw_devices_list};
pub use ffi::{RwStatus, rw_last_error, rw_version};
pub use items::{rw_searcher_add, rw_searcher_compact, rw_searcher_distill, rw_searcher_refresh, rw_searcher_remove};
pub use model::{RwModel, rw_model_dim, rw_model_free, rw_model_item_rows, rw_model_open};
pub use options::{RwIndexOptions, RwSearchOptions};
pub use search::{RwHistory, rw_searcher_encode, rw_searcher_rescore, rw_searcher_search, rw_searcher_search_tokens};
pub use searcher::{
    RwSearcher, rw_searcher_contains, rw_searcher_device, rw_searcher_dim, rw_searcher_free,
    rw_searcher_from_embeddings, rw_searcher_from_model, rw_searcher_len, rw_searcher_open_index,
    rw_searcher_query_dim, rw_searcher_save,
};
pub use string_ids::{rw_id_of_string, rw_searcher_has_string_ids, rw_searcher_string_id};
