//! Saves what the window shows once everything is there, and closes it: the test of the whole.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eframe::egui::{ColorImage, Context, ViewportCommand};

/// Longest wait; software drivers compile every kernel first.
const PATIENCE: Duration = Duration::from_secs(300);

/// How it ended, once it has.
pub type Outcome = Arc<Mutex<Option<Result<(), String>>>>;

/// A screenshot to be taken.
pub struct Screenshot {
    path: PathBuf,
    started: Instant,
    /// Frames since everything is there: the layout settles in the first ones.
    settled: usize,
    is_closing: bool,
    outcome: Outcome,
}

impl Screenshot {
    /// To the PNG file `path`.
    pub fn new(path: PathBuf, outcome: Outcome) -> Screenshot {
        Screenshot { path, started: Instant::now(), settled: 0, is_closing: false, outcome }
    }

    /// One frame.
    pub fn step(&mut self, ctx: &Context, is_settled: bool, failed: Option<String>) {
        let late = (self.started.elapsed() > PATIENCE).then(|| format!("nothing to show after {PATIENCE:?}"));
        if let Some(error) = failed.or(late) {
            set(&self.outcome, Err(error));
        }
        let is_done = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if is_done && !self.is_closing {
            self.is_closing = true;
            ctx.send_viewport_cmd(ViewportCommand::Close);
        }
        self.settled = if is_settled { self.settled + 1 } else { 0 };
        if self.settled == 5 && !is_done {
            let (path, outcome, wake) = (self.path.clone(), self.outcome.clone(), ctx.clone());
            ctx.request_screenshot(move |image| {
                set(&outcome, save(&image, &path));
                wake.request_repaint();
            });
        }
        ctx.request_repaint_after(Duration::from_millis(30));
    }
}

fn set(outcome: &Outcome, ended: Result<(), String>) {
    outcome.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(ended);
}

fn save(image: &ColorImage, path: &Path) -> Result<(), String> {
    if image.pixels.windows(2).all(|pair| pair[0] == pair[1]) {
        return Err("the window has one colour only: nothing was drawn".to_string());
    }
    let rgb: Vec<u8> = image.pixels.iter().flat_map(|pixel| [pixel.r(), pixel.g(), pixel.b()]).collect();
    let [width, height] = image.size.map(|side| side as u32);
    image::save_buffer(path, &rgb, width, height, image::ExtendedColorType::Rgb8)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
