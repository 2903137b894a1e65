"""The program ``rails-bench``, which is in the compiled half."""

import signal
import sys

from . import _native


def main() -> int:
    """Runs the program with the arguments of the command line."""
    # Python would note Ctrl-C, and look at it when the program has ended.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _native.run_program(["rails-bench", *sys.argv[1:]])
