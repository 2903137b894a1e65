"""A process with one program: prepares a case, then answers a batch whenever it is told to, and says how long that took.

Lines of JSON in and out; nothing else is written to standard output.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np


def main():
    name, threads = sys.argv[1], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    # What libraries print goes elsewhere.
    os.dup2(2, 1)
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[: max(threads, 1)])

    def say(**answer):
        print(json.dumps(answer), file=answers, flush=True)

    program, found = None, None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["do"] == "prepare":
                from inputs import Inputs
                from programs import PROGRAMS

                program = PROGRAMS[name](order["case"], Inputs(Path(order["inputs"])), threads)
                say(notes=program.notes)
            elif order["do"] == "run":
                started = time.perf_counter()
                found = program.run()
                say(ms=(time.perf_counter() - started) * 1e3)
            elif order["do"] == "shortlist":
                found = program.shortlist(order["n"])
                say()
            else:
                np.save(order["path"], np.asarray(program.ids(found), dtype=np.int64))
                say()
        except Exception as error:  # the comparison goes on without this program
            say(error=f"{type(error).__name__}: {error}".replace("\n", " ")[:300])


main()
