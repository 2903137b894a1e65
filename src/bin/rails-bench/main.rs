//! `rails-bench`: retrieval quality and speed of learned similarities, from the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    rails_bench::run(std::env::args_os(), |logger, most| {
        // Nobody else in this program has set one.
        if log::set_boxed_logger(logger).is_ok() {
            log::set_max_level(most);
        }
    })
    .into()
}
