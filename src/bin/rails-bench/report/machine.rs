//! What measured: processor, threads, and version of the program.

use std::fmt;

/// A machine with this program on it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Threads that the CPU backend uses.
    pub threads: usize,
    /// Version of the program.
    pub version: &'static str,
}

impl Machine {
    /// The one that this runs on.
    pub fn here() -> Machine {
        let processor = processor().unwrap_or_else(|| std::env::consts::ARCH.to_string());
        Machine { processor, threads: rayon::current_num_threads(), version: env!("CARGO_PKG_VERSION") }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Machine { processor, threads, version } = self;
        let unit = if *threads == 1 { "thread" } else { "threads" };
        write!(f, "{processor}, {threads} {unit}; rails-bench {version}")
    }
}

/// What the system calls its processor, if it says.
fn processor() -> Option<String> {
    let name = match std::env::consts::OS {
        "macos" => {
            let asked = std::process::Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]).output();
            String::from_utf8(asked.ok()?.stdout).ok()?
        }
        "windows" => std::env::var("PROCESSOR_IDENTIFIER").ok()?,
        _ => {
            let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
            let line = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
            line?.1.to_string()
        }
    };
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    (!name.is_empty()).then_some(name)
}

/// This moment, in UTC, to the minute.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()
}
