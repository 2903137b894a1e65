//! What a compiler for real GPUs makes of every kernel, on a machine without any: Mesa's driver for AMD hardware compiles for chips that
//! are not there. `scripts/check-isa.sh` calls this with the right environment:
//!
//! ```text
//! cargo test --bench isa -- [--csv FILE] [--set-floors] [--full-checks] [--shaders FOLDER] [--turns N,N] [--dump] [--self-test] [FILTER]
//! ```
//!
//! Every kernel is compiled for three generations of AMD chips at the shapes of published models, as wgpu would hand it to the
//! driver. A kernel fails if it needs scratch memory, spills registers, or if its **useful share** is below the floor in
//! benches/isa/floors.txt: products that its formula adds up, divided by the vector instructions that a thread runs for them, loops
//! weighted by their turns. `--set-floors` makes the present shares the floors. `--full-checks` compiles with all checks of wgpu, loops that
//! count their turns included. `--shaders` reads the files of `shaders/` from a folder, so that trying something needs no compilation.
//! `--turns` says how often loops turn whose ends are parameters, where the library does not know yet. `--dump` prints the machine code. FILTER takes the kernels whose names contain it.

mod code;
mod driver;
mod floors;
mod measured;
mod self_test;
mod spirv;
mod walk;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use driver::Driver;
use floors::Floors;
use measured::{Measured, measured};
use rails_wgpu::backend::gpu::shaped_kernels;
use spirv::{Checks, Shaders};

/// Chips, and what their generation is called.
const CHIPS: [(&str, &str); 3] = [("vega10", "GCN5"), ("navi21", "RDNA2"), ("navi31", "RDNA3")];

/// The variable by which the driver is told what to compile for.
const CHIP: &str = "RADV_FORCE_FAMILY";

#[derive(Default)]
struct Options {
    csv: Option<PathBuf>,
    set_floors: bool,
    full_checks: bool,
    shaders: Option<PathBuf>,
    turns: Option<Vec<u64>>,
    dump: bool,
    self_test: bool,
    filter: String,
}

impl Options {
    fn parse() -> Result<Options, String> {
        let mut options = Options::default();
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                // Cargo's own.
                "--bench" => {}
                "--csv" => options.csv = Some(value()?.into()),
                "--set-floors" => options.set_floors = true,
                "--full-checks" => options.full_checks = true,
                "--shaders" => options.shaders = Some(value()?.into()),
                "--turns" => {
                    let text = value()?;
                    let turns =
                        text.split(',').map(|turns| turns.parse().map_err(|_| format!("{text}: expected numbers")));
                    options.turns = Some(turns.collect::<Result<_, _>>()?);
                }
                "--dump" => options.dump = true,
                "--self-test" => options.self_test = true,
                _ if arg.starts_with('-') => return Err(format!("{arg}: no such option")),
                _ => options.filter = arg,
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let options = Options::parse()?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/isa/floors.txt");
    if let Ok(chip) = std::env::var(CHIP) {
        let (_, generation) =
            CHIPS.iter().find(|(name, _)| *name == chip).ok_or(format!("{CHIP}={chip}: not known"))?;
        let driver = Driver::open()?;
        return match options.self_test {
            true => self_test::run(&driver, generation, &Floors::read(&path)?),
            false => compile(&options, &driver, generation),
        };
    }
    let rows = of_all_chips()?;
    if options.self_test {
        return Ok(());
    }
    if let Some(path) = &options.csv {
        measured::write(path, &rows)?;
    }
    print!("{}", measured::table(&rows));
    if options.set_floors {
        return Floors::of(&rows).write(&path);
    }
    let floors = Floors::read(&path)?;
    let mut wrong: Vec<String> = rows.iter().filter_map(|row| floors.complaint(row)).collect();
    if options.filter.is_empty() {
        wrong.extend(floors.unknown(&rows));
    }
    match wrong.is_empty() || options.full_checks {
        true => Ok(()),
        false => Err(format!("{} kernels are not what they should be:\n{}", wrong.len(), wrong.join("\n"))),
    }
}

/// This program for every chip, each in a process of its own: the driver reads its variable once.
fn of_all_chips() -> Result<Vec<Measured>, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut children = Vec::new();
    for (chip, _) in CHIPS {
        let mut command = Command::new(&program);
        command.args(std::env::args().skip(1)).env(CHIP, chip).env("RADV_DEBUG", "nocache").stdout(Stdio::piped());
        children.push((chip, command.spawn().map_err(|error| error.to_string())?));
    }
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for (chip, child) in children {
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            failed.push(chip);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        for line in text.lines() {
            match Measured::parse(line) {
                Some(row) => rows.push(row),
                None => println!("{line}"),
            }
        }
    }
    if failed.is_empty() { Ok(rows) } else { Err(format!("{}: see above", failed.join(", "))) }
}

/// Prints a line for each kernel.
fn compile(options: &Options, driver: &Driver, generation: &str) -> Result<(), String> {
    let shaders = options.shaders.as_deref().map_or(Ok(Shaders::compiled()), Shaders::of_folder)?;
    let checks = Checks { loops: options.full_checks };
    let mut wrong = Vec::new();
    for mut kernel in shaped_kernels() {
        kernel.turns = options.turns.clone().unwrap_or(kernel.turns);
        let name = format!("{} {} {}", kernel.spec.label(), kernel.shape, kernel.dtype);
        let multiplies_matrices = kernel.spec.wgsl().contains("enable wgpu_cooperative_matrix;");
        if !name.contains(&options.filter) || (multiplies_matrices && !driver.matrices) {
            continue;
        }
        let failed = |error: String| format!("{generation}, {name}: {error}");
        let compiled = spirv::compiled(&kernel.spec, &shaders.text(&kernel.spec), checks).map_err(failed)?;
        let report = driver.compile(&compiled).map_err(failed)?;
        if options.dump {
            println!("{name}\n{}", report.code);
        }
        match measured(generation, &kernel, &report) {
            Ok(row) => println!("{}", row.line()),
            Err(error) => wrong.push(failed(error)),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}
