//! What is recorded of a compiled kernel.

use std::fmt::Write;
use std::path::Path;

use rails_wgpu::backend::gpu::ShapedKernel;

use super::code::Code;
use super::driver::Report;
use super::walk;

/// A row of the record.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Generation, kernel, shape, number format.
    pub name: [String; 4],
    /// In the order of [`COLUMNS`], without the share.
    pub numbers: Vec<u64>,
    /// Products that the formula adds up, for each vector instruction; `None` where a kernel multiplies nothing.
    pub share: Option<f64>,
}

/// Of `numbers`.
const COLUMNS: [&str; 13] = [
    "VGPRs",
    "SGPRs",
    "waves per SIMD",
    "scratch bytes",
    "spilled VGPRs",
    "spilled SGPRs",
    "workgroup bytes",
    "multiply-adds",
    "vector instructions",
    "scalar instructions",
    "vector loads and stores",
    "scalar loads",
    "workgroup loads and stores",
];

/// The driver's names of the first seven.
const STATISTICS: [&str; 7] =
    ["VGPRs", "SGPRs", "Subgroups per SIMD", "Scratch size", "Spilled VGPRs", "Spilled SGPRs", "LDS size"];

/// Counts what one thread runs.
pub fn measured(generation: &str, kernel: &ShapedKernel, report: &Report) -> Result<Measured, String> {
    let statistic = |name: &&str| {
        let found = report.statistics.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| *value).ok_or_else(|| format!("the driver does not say `{name}`"))
    };
    let mut numbers = STATISTICS.iter().map(statistic).collect::<Result<Vec<_>, _>>()?;
    let mut share = None;
    if kernel.multiply_adds > 0.0 {
        let counts = walk::counts(&Code::parse(&report.code), kernel.spec.label().contains("scan"), &kernel.turns)?;
        let walk::Counts { multiply_adds, vector, scalar, memory, scalar_memory, workgroup } = counts;
        numbers.extend([multiply_adds, vector, scalar, memory, scalar_memory, workgroup]);
        share = Some(kernel.multiply_adds / vector as f64);
    }
    let name = [generation, kernel.spec.label(), &kernel.shape, kernel.dtype].map(str::to_string);
    Ok(Measured { name, numbers, share })
}

/// Marks rows between processes.
const MARK: &str = "measured\t";

impl Measured {
    /// The number of a column.
    pub fn number(&self, column: &str) -> u64 {
        COLUMNS.iter().position(|known| *known == column).and_then(|i| self.numbers.get(i)).copied().unwrap_or(0)
    }

    fn cells(&self) -> Vec<String> {
        let numbers = (0..COLUMNS.len()).map(|i| self.numbers.get(i).map_or(String::new(), u64::to_string));
        let share = self.share.map_or(String::new(), |share| format!("{share:.4}"));
        self.name.iter().cloned().chain(numbers).chain([share]).collect()
    }

    /// For another process.
    pub fn line(&self) -> String {
        format!("{MARK}{}", self.cells().join("\t"))
    }

    /// What [`Measured::line`] has written.
    pub fn parse(line: &str) -> Option<Measured> {
        let cells: Vec<&str> = line.strip_prefix(MARK)?.split('\t').collect();
        let (name, rest) = cells.split_first_chunk::<4>()?;
        let (share, numbers) = rest.split_last()?;
        Some(Measured {
            name: name.map(str::to_string),
            numbers: numbers.iter().filter_map(|number| number.parse().ok()).collect(),
            share: share.parse().ok(),
        })
    }
}

/// Writes the record.
pub fn write(path: &Path, rows: &[Measured]) -> Result<(), String> {
    let mut text = format!("generation,kernel,shape,dtype,{},useful share\n", COLUMNS.join(","));
    for row in rows {
        let quoted = row
            .cells()
            .iter()
            .map(|cell| if cell.contains(',') { format!("\"{cell}\"") } else { cell.clone() })
            .collect::<Vec<_>>();
        let _ = writeln!(text, "{}", quoted.join(","));
    }
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// For people.
pub fn table(rows: &[Measured]) -> String {
    let mut text = String::new();
    for row in rows {
        let share = row.share.map_or("     -".to_string(), |share| format!("{:4.0} %", 100.0 * share));
        let [vgprs, waves, vector, memory, scalar, workgroup] = [
            "VGPRs",
            "waves per SIMD",
            "vector instructions",
            "vector loads and stores",
            "scalar loads",
            "workgroup loads and stores",
        ]
        .map(|column| row.number(column));
        let spilled = ["scratch bytes", "spilled VGPRs", "spilled SGPRs"].map(|column| row.number(column));
        let spilled = if spilled == [0; 3] { String::new() } else { format!("  scratch, spilled: {spilled:?}") };
        let _ = writeln!(
            text,
            "{share} {vgprs:4} VGPRs {waves:3} waves {vector:7} vector {memory:5} loads {scalar:5} scalar {workgroup:5} workgroup  {}{spilled}",
            row.name.join(" "),
        );
    }
    text
}
