//! A desktop application with recommendations: like some films, and see what to watch next while you click.
//!
//! It draws with egui on wgpu, and searches on the same wgpu device. Run it with `cargo run --release -p rails-desktop`;
//! `--device auto|cpu|gpu` says where to search, `--screenshot FILE.png` saves what it shows and ends. Drawing needs a Vulkan,
//! Metal or DX12 driver; one that runs on the processor will do, and then the CPU backend searches.

mod app;
mod catalog;
#[path = "../../../assets/demo.rs"]
mod demo;
mod device;
mod engine;
mod film_row;
mod heart;
mod plot;
mod screenshot;
mod theme;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use eframe::egui::ViewportBuilder;

use app::App;
use demo::Demo;
use screenshot::{Outcome, Screenshot};

/// What the command line says.
struct Options {
    device: String,
    screenshot: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    match options().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rails-desktop: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options { device: "auto".to_string(), screenshot: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name}: expected a value after it"))?;
        match name.as_str() {
            "--device" => options.device = value,
            "--screenshot" => options.screenshot = Some(value.into()),
            _ => return Err(format!("expected --device or --screenshot, found `{name}`")),
        }
    }
    Ok(options)
}

fn run(options: Options) -> Result<(), String> {
    let library = Demo::load().and_then(|demo| demo.library(engine::LIBRARY));
    let (ids, _) = library.map_err(|error| error.to_string())?;
    let ids: Vec<u32> = ids.into_iter().filter_map(|id| id.try_into().ok()).collect();
    let outcome = Outcome::new(Mutex::new(None));
    let is_tested = options.screenshot.is_some();
    let screenshot = options.screenshot.map(|path| Screenshot::new(path, Arc::clone(&outcome)));
    let native = eframe::NativeOptions {
        viewport: ViewportBuilder::default()
            .with_title("Tonight")
            .with_inner_size([1280.0, 800.0])
            .with_min_inner_size([1000.0, 640.0]),
        wgpu_options: device::configuration(),
        ..eframe::NativeOptions::default()
    };
    let open = move |context: &eframe::CreationContext| -> Result<Box<dyn eframe::App>, Box<dyn std::error::Error + Send + Sync>> {
        let chosen = device::choose(&options.device, context.wgpu_render_state.as_ref())?;
        Ok(Box::new(App::new(&context.egui_ctx, chosen, &ids, screenshot)))
    };
    eframe::run_native("rails-desktop", native, Box::new(open))
        .map_err(|error| format!("cannot open a window: {error}"))?;
    let ended = outcome.lock().map_err(|error| error.to_string())?.take();
    match (is_tested, ended) {
        (true, None) => Err("closed before the screenshot was taken".to_string()),
        (_, ended) => ended.unwrap_or(Ok(())),
    }
}
