//! Ctrl-C that lets a long work end tidily.

use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::progress::note;

/// Exit code of a program that was ended by Ctrl-C, as shells have it.
pub const EXIT_CODE: u8 = 130;

/// A flag that the first Ctrl-C sets; the second one ends the program at once.
pub fn flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let pressed = Arc::clone(&flag);
    let handler = move || {
        if pressed.swap(true, Ordering::Relaxed) {
            exit(EXIT_CODE.into());
        }
        note!("stopping after this batch; what was measured is kept (once more: stop at once)");
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        log::warn!("Ctrl-C ends the program at once: {error}");
    }
    flag
}
