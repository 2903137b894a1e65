//! `rails-bench preprocess`.

use std::path::Path;

use clap::Args;
use rails_wgpu::dataset::{PreprocessOptions, RawFormat, preprocess, raw_files, write_item_ids};
use rails_wgpu::{Result, atomic};

use crate::output::outln;
use crate::paths::{self, Input, Output};
use crate::progress;

#[derive(Args)]
pub struct PreprocessArgs {
    /// csv (CSV or TSV with named columns), ml-100k, ml-1m, ml-20m, amzn-books, recbole or txt
    format: RawFormat,
    /// The raw data: a zip, a folder, or the ratings file; each may be compressed with gzip
    input: Input,
    /// The sequence CSV to write
    #[arg(short, long)]
    output: Output,
    /// The item list to write [default: the output's name with .items.txt]
    #[arg(long)]
    items_output: Option<Output>,
    /// Pass over malformed lines, and say how many
    #[arg(long)]
    skip_bad_lines: bool,
}

pub fn run(args: &PreprocessArgs) -> Result<()> {
    let items = args.items_output.as_deref().map_or_else(|| args.output.with_extension("items.txt"), Path::to_path_buf);
    paths::check(&raw_files(args.format, &args.input)?, &[&args.output, &items])?;
    // Fails before the work, not after it.
    atomic::check(&args.output)?;
    atomic::check(&items)?;
    let counter = progress::counter("lines");
    let count = |lines| counter.set(lines);
    let options = PreprocessOptions::default().with_skip_bad_lines(args.skip_bad_lines).with_progress(&count);
    let preprocessed = preprocess(args.format, &args.input, options);
    drop(counter);
    let preprocessed = preprocessed?;
    progress::stage(&format!("writing {}", args.output.display()), || {
        preprocessed.dataset.write(&args.output)?;
        write_item_ids(&items, &preprocessed.item_ids, &preprocessed.original_items)
    })?;
    outln!("{}", preprocessed.report)?;
    outln!("sequences: {}", args.output.display())?;
    outln!("items:     {}", items.display())?;
    Ok(())
}
