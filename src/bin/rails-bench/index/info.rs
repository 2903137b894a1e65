//! `rails-bench index info` and `index verify`.

use std::path::Path;

use crate::report::Table;
use clap::Args;
use rails_wgpu::index::{IndexInfo, ItemIndex};
use rails_wgpu::{Error, Result};

use crate::exit_code::ExitCode;
use crate::json_output::JsonOutput;
use crate::output::{counted, outln};
use crate::paths::{Input, Output};
use crate::progress;

#[derive(Args)]
pub struct InfoArgs {
    /// The folder of the index
    index: Input,
    /// Also write the facts as JSON to this file; `-`: to standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<Output>,
}

#[derive(Args)]
pub struct VerifyArgs {
    /// The folder of the index
    index: Input,
    /// Also write the report as JSON to this file; `-`: to standard output, instead of the list
    #[arg(long, value_name = "FILE")]
    json: Option<Output>,
}

pub fn run(args: &InfoArgs) -> Result<()> {
    let json = args.json.as_deref().map(JsonOutput::open).transpose()?;
    if !matches!(json, Some(JsonOutput::Stdout)) {
        print(&args.index)?;
    }
    let Some(json) = json else { return Ok(()) };
    let text = serde_json::to_string_pretty(&ItemIndex::info(&args.index)?).map_err(std::io::Error::from);
    json.write(&format!("{}\n", text.map_err(Error::io("write", Path::new("JSON")))?))
}

/// Prints what an index holds.
pub fn print(folder: &Path) -> Result<()> {
    let info = ItemIndex::info(folder)?;
    let IndexInfo { generation, items, deleted, dim, dtype, form, similarity, attributes, .. } = &info;
    let yes = |held: bool| if held { "yes" } else { "no" };
    outln!("{}: version {generation}", folder.display())?;
    outln!("items      {items} in {}; {deleted} deleted", counted(info.segments.len(), "segment"))?;
    outln!(
        "similarity {similarity}, D = {dim}; encoder {}; distilled gate {}",
        yes(info.encoder),
        yes(info.distilled)
    )?;
    if !attributes.is_empty() {
        let columns: Vec<String> = attributes.iter().map(ToString::to_string).collect();
        outln!("attributes {}", columns.join(", "))?;
    }
    outln!("tables     {dtype}, {form} form; {} with all files\n", size(info.bytes))?;
    let mut table = Table::new(["segment", "items", "deleted", "lists", "size"]);
    for segment in &info.segments {
        table.row([
            segment.file.clone(),
            segment.items.to_string(),
            segment.deleted.to_string(),
            segment.lists.to_string(),
            size(segment.bytes),
        ]);
    }
    table.print()
}

pub fn verify(args: &VerifyArgs) -> Result<ExitCode> {
    let json = args.json.as_deref().map(JsonOutput::open).transpose()?;
    let read = || ItemIndex::verify(&args.index);
    let report = progress::stage(&format!("reading {}", args.index.display()), read)?;
    if !matches!(json, Some(JsonOutput::Stdout)) {
        let what = format!("version {}, {} files, {}", report.generation, report.files + 1, size(report.bytes));
        match report.is_sound() {
            true => outln!("{}: sound ({what})", args.index.display())?,
            false => outln!("{}: not sound, faults: {} ({what})", args.index.display(), report.damage.len())?,
        }
        let mut damage = report.damage.iter();
        damage.try_for_each(|damage| outln!("{}: {}", damage.path.display(), damage.what))?;
    }
    if let Some(json) = json {
        let damage: Vec<_> = report
            .damage
            .iter()
            .map(|damage| serde_json::json!({ "path": damage.path, "what": damage.what }))
            .collect();
        let (generation, files, bytes) = (report.generation, report.files + 1, report.bytes);
        let value = serde_json::json!({
            "sound": report.is_sound(), "generation": generation, "files": files, "bytes": bytes, "damage": damage,
        });
        json.write(&format!("{value:#}\n"))?;
    }
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
