//! What the library logs, as records of Python's `logging`: the target `rails_wgpu::search` is the logger `rails_wgpu.search`.

use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};
use pyo3::prelude::*;

/// The numbers that Python has for levels; it has none for `trace`.
const LEVELS: [(LevelFilter, u32); 5] = [
    (LevelFilter::Error, 40),
    (LevelFilter::Warn, 30),
    (LevelFilter::Info, 20),
    (LevelFilter::Debug, 10),
    (LevelFilter::Trace, 5),
];

/// The logger of the program `rails-bench`, while it runs.
static PROGRAM: OnceLock<Box<dyn Log>> = OnceLock::new();

struct Bridge;

impl Log for Bridge {
    fn enabled(&self, metadata: &Metadata) -> bool {
        if let Some(logger) = PROGRAM.get() {
            return logger.enabled(metadata);
        }
        // Libraries below this one are heard if something is wrong.
        metadata.target().starts_with("rails_wgpu") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record) {
        if let Some(logger) = PROGRAM.get() {
            return logger.log(record);
        }
        if !self.enabled(record.metadata()) {
            return;
        }
        let (_, level) = LEVELS[record.level() as usize - 1];
        let (name, message) = (record.target().replace("::", "."), record.args().to_string());
        // Without an interpreter, at the end of the program, there is nobody to tell; nor can a handler that fails be told.
        let _ = Python::try_attach(|py| -> PyResult<()> {
            let logger = py.import("logging")?.call_method1("getLogger", (name,))?;
            logger.call_method1("log", (level, "%s", message)).map(|_| ())
        });
    }

    fn flush(&self) {}
}

/// From now on, what is logged goes to Python.
pub fn start() {
    // Fails if it has been called before: by another interpreter of this process.
    let _ = log::set_logger(&Bridge);
    log::set_max_level(LevelFilter::Warn);
}

/// From now on, what is logged up to `most` goes to `logger`, and not to Python.
pub fn log_to(logger: Box<dyn Log>, most: LevelFilter) {
    if PROGRAM.set(logger).is_ok() {
        log::set_max_level(most);
    }
}

/// What is below `level`, a number of Python's, is not handed over, which would take the interpreter.
#[pyfunction]
pub fn set_log_level(level: u32) {
    let passes = LEVELS.iter().rev().find(|(_, number)| *number >= level.max(1));
    log::set_max_level(passes.map_or(LevelFilter::Off, |(filter, _)| *filter));
}
