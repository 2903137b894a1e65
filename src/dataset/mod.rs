//! Data sets: interaction histories on disk.
//!
//! ```text
//! raw MovieLens / Amazon / CSV / recbole / SASRec files --preprocess--> Dataset + item ids --write--> sasrec_format.csv
//! ```
//!
//! Everywhere in this crate item ids start at 1 and 0 is padding. The files written here need no shift. The
//! reference writes `amzn-books` with ids from 0 and adds 1 while loading; to read such a file, set
//! [`ReadOptions::shift_id_by`] to 1.

mod catalog;
mod items;
mod lines;
mod names;
mod number;
pub mod preprocess;
mod sequences;
mod trec;

pub use items::{item_list_beside, item_list_text, parse_item_ids, read_item_ids, read_string_ids, write_item_ids};
pub use names::ItemNames;
pub(crate) use number::item_column;
pub use preprocess::{PreprocessOptions, PreprocessReport, Preprocessed, RawFormat, preprocess, raw_files};
pub use sequences::{Dataset, ReadOptions, ReadReport, Sequence};
pub use trec::{Qrels, TREC_RUN_NAME, TrecRun, check_trec_name};
