//! The files that a benchmark writes, and the table it prints.

use std::io::Write;

use crate::report::{SpeedReport, page};
use rails_wgpu::{Result, atomic};

use super::BenchArgs;
use crate::json_output::JsonOutput;
use crate::output::{out, outln};
use crate::paths::Output;
use crate::progress::note;

/// Where results go.
pub struct Outputs {
    json: Option<JsonOutput>,
    csv: Option<Output>,
    html: Option<Output>,
}

impl Outputs {
    /// Checks that every file can be written, before the work.
    pub fn open(args: &BenchArgs) -> Result<Outputs> {
        args.csv.iter().chain(&args.html).try_for_each(|path| atomic::check(path))?;
        let json = args.json.as_deref().map(JsonOutput::open).transpose()?;
        Ok(Outputs { json, csv: args.csv.clone(), html: args.html.clone() })
    }

    /// Replaces all files; what could not be replaced is said, and is tried again after the next grid point.
    pub fn save(&self, report: &SpeedReport) {
        if let Err(error) = self.write(report) {
            eprintln!("warning: {error}");
        }
    }

    /// Replaces all files and prints the table.
    pub fn finish(&self, report: &SpeedReport) -> Result<()> {
        if report.rows.is_empty() {
            note!("nothing was measured");
            return Ok(());
        }
        // The files first: whoever reads the standard output may have gone.
        let written = self.write(report);
        match &self.json {
            Some(stdout @ JsonOutput::Stdout) => stdout.write(&format!("{:#}\n", report.json()))?,
            _ => {
                out!("{}\n", report.conditions())?;
                report.table().print()?;
                if let Some(legend) = report.legend() {
                    outln!("{legend}")?;
                }
            }
        }
        if report.interrupted {
            note!("ended early: rows are missing, or cover fewer queries");
        }
        written
    }

    fn write(&self, report: &SpeedReport) -> Result<()> {
        if let Some(file @ JsonOutput::File(_)) = &self.json {
            file.write(&format!("{:#}\n", report.json()))?;
        }
        if let Some(path) = &self.csv {
            atomic::write(path, |file| report.csv(file))?;
        }
        if let Some(path) = &self.html {
            atomic::write(path, |file| file.write_all(page(report).as_bytes()))?;
        }
        Ok(())
    }
}
