//! Ctrl-C that lets a long work end tidily.

use std::process::exit;

use rails_wgpu::Cancel;

use crate::exit_code::ExitCode;
use crate::progress::note;

/// What the first Ctrl-C cancels, saying `words`; the second one ends the program at once.
pub fn cancel(words: &'static str) -> Cancel {
    let cancel = Cancel::new();
    let pressed = cancel.clone();
    let handler = move || {
        if pressed.is_cancelled() {
            exit(ExitCode::INTERRUPTED.0.into());
        }
        pressed.cancel();
        note!("{words} (once more: stop at once)");
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        log::warn!("Ctrl-C ends the program at once: {error}");
    }
    cancel
}

/// [`cancel`] for what measures batches.
pub fn cancel_measuring() -> Cancel {
    cancel("stopping after this batch; what was measured is kept")
}
