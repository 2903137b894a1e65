//! What long work says while it runs: bars and status lines on terminals, and a line of the log for each stage
//! (`RUST_LOG=info`). `--quiet` silences all but the log.

use std::fmt::{Arguments, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use rails_wgpu::Result;

static QUIET: AtomicBool = AtomicBool::new(false);

/// No bars, status lines and notes from now on.
pub fn set_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Says something that is no result and no failure, on standard error.
pub fn write_note(text: Arguments) {
    if !QUIET.load(Ordering::Relaxed) {
        eprintln!("{text}");
    }
}

/// `eprintln!` that `--quiet` silences.
macro_rules! note {
    ($($text:tt)*) => { $crate::progress::write_note(format_args!($($text)*)) };
}

pub(crate) use note;

/// A bar over a known amount of work. Once that is done, a line says what still has to be.
pub struct Bar {
    bar: ProgressBar,
    finishing: &'static str,
}

impl Bar {
    /// Work that was done in all.
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
        if Some(done) >= self.bar.length() {
            style(&self.bar, "{spinner} {msg}  {elapsed}");
            self.bar.set_message(self.finishing);
        }
    }

    /// More work done.
    pub fn add(&self, more: u64) {
        self.set(self.bar.position() + more);
    }

    /// Shows something that changes too often for the log, where the bar has room for it.
    pub fn show(&self, what: String) {
        self.bar.set_message(what);
    }

    /// Takes the bar away while something else is printed.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Says what is being done, where the bar has room for it.
    pub fn say(&self, what: String) {
        log::info!("{what}");
        self.bar.set_message(what);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A bar over `total` units of `what`, with rate and time left; `finishing`: what is done after the last of them.
pub fn bar(total: u64, what: &str, finishing: &'static str) -> Bar {
    let bar = drawn(Some(total), &format!("{{bar:32}} {{human_pos}}/{{human_len}} {what}  {{rate}}{{left}}"));
    Bar { bar, finishing }
}

/// A bar over work whose unit means nothing to people: a percentage, the time left, and what is being done.
pub fn share(total: u64) -> Bar {
    Bar { bar: drawn(Some(total), "{bar:20} {percent:>3} %{left}  {msg}"), finishing: "the last batches" }
}

/// A count of `what` where the total is not known.
pub fn counter(what: &str) -> Bar {
    Bar { bar: drawn(None, &format!("{{human_pos}} {what}  {{rate}}")), finishing: "" }
}

/// Does `work`, and says what it is: on a terminal while it lasts, in the log with its time when it is done.
pub fn stage<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let line = drawn(None, "{spinner} {msg}  {elapsed}");
    line.set_message(what.to_string());
    let done = work();
    line.finish_and_clear();
    if done.is_ok() {
        log::info!("{what}: {:.2} s", started.elapsed().as_secs_f64());
    }
    done
}

/// [`stage`] for long work that tells which share of it is done, from 0 to 1; the log has its beginning, too.
pub fn share_of<T>(what: &str, work: impl FnOnce(&dyn Fn(f32)) -> Result<T>) -> Result<T> {
    log::info!("{what}");
    let started = Instant::now();
    let bar = drawn(Some(100), "{bar:20} {percent:>3} %{left}  {msg}");
    bar.set_message(what.to_string());
    let done = work(&|share| bar.set_position((share * 100.0) as u64));
    bar.finish_and_clear();
    if done.is_ok() {
        log::info!("{what}: {:.2} s", started.elapsed().as_secs_f64());
    }
    done
}

fn drawn(total: Option<u64>, template: &str) -> ProgressBar {
    let target = match QUIET.load(Ordering::Relaxed) {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr_with_hz(5),
    };
    let bar = ProgressBar::with_draw_target(total, target);
    style(&bar, template);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        let rate = |state: &ProgressState, text: &mut dyn Write| {
            // Writing to a line of text cannot fail.
            let _ = write!(text, "{}/s", two_digits(state.per_sec()));
        };
        let left = |state: &ProgressState, text: &mut dyn Write| {
            let _ = text.write_str(&time_left(state.pos(), state.eta()));
        };
        bar.set_style(style.with_key("rate", rate).with_key("left", left));
    }
}

/// The time left, which is known only when something has been done.
fn time_left(done: u64, left: Duration) -> String {
    if done == 0 { String::new() } else { format!("  {:#} left", HumanDuration(left)) }
}

/// A rate with two digits that count.
pub fn two_digits(rate: f64) -> String {
    match rate {
        10.0.. => {
            let unit = 10f64.powf(rate.log10().floor() - 1.0);
            HumanCount(((rate / unit).round() * unit) as u64).to_string()
        }
        0.01.. => format!("{rate:.*}", if rate < 1.0 { 2 } else { 1 }),
        _ => "0".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_that_has_not_moved_says_nothing_of_the_time_left() {
        assert_eq!(time_left(0, Duration::ZERO), "");
        assert_eq!(time_left(3, Duration::from_secs(75)), "  75s left");
    }

    #[test]
    fn rates_have_two_digits() {
        let texts = [64_305.2, 999.0, 45.6, 4.52, 0.126, 0.0].map(two_digits);
        assert_eq!(texts, ["64,000", "1,000", "46", "4.5", "0.13", "0"]);
    }
}
