//! What every kernel must keep.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::measured::Measured;

/// Least useful shares, in percent.
pub struct Floors(BTreeMap<String, u32>);

fn key(row: &Measured) -> String {
    row.name.join(" | ")
}

impl Floors {
    /// The present shares, rounded down.
    pub fn of(rows: &[Measured]) -> Floors {
        Floors(rows.iter().filter_map(|row| Some((key(row), (100.0 * row.share?) as u32))).collect())
    }

    /// From a file: a line for each kernel.
    pub fn read(path: &Path) -> Result<Floors, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let floor = |line: &str| {
            let (percent, name) = line.split_once(' ')?;
            Some((name.to_string(), percent.parse().ok()?))
        };
        let floors = text.lines().map(|line| floor(line).ok_or_else(|| format!("{}: `{line}`", path.display())));
        Ok(Floors(floors.collect::<Result<_, _>>()?))
    }

    /// Writes them to a file.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = self.0.iter().fold(String::new(), |mut text, (name, percent)| {
            let _ = writeln!(text, "{percent} {name}");
            text
        });
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// What is wrong with a kernel, if anything.
    pub fn complaint(&self, row: &Measured) -> Option<String> {
        let key = key(row);
        for column in ["scratch bytes", "spilled VGPRs", "spilled SGPRs"] {
            if row.number(column) > 0 {
                return Some(format!("{key}: {} {column}", row.number(column)));
            }
        }
        let share = 100.0 * row.share?;
        match self.0.get(&key) {
            None => Some(format!("{key}: it has no floor; --set-floors gives it one")),
            Some(&floor) if share < f64::from(floor) => {
                Some(format!("{key}: useful share {share:.1} % instead of {floor} % or more"))
            }
            Some(_) => None,
        }
    }

    /// Floors of kernels that there are not.
    pub fn unknown(&self, rows: &[Measured]) -> Vec<String> {
        let known: Vec<String> = rows.iter().map(key).collect();
        self.0
            .keys()
            .filter(|name| !known.contains(name))
            .map(|name| format!("{name}: there is no such kernel"))
            .collect()
    }
}
