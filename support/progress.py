"""What a run prints while it goes on."""

import math
import os
import shutil
import sys
import threading
import time
import warnings

PATIENCE = 10  # seconds without a line after which one is printed


def open_streams():
    """Standard streams that can be written to, though some callers close them; short warnings."""
    warnings.formatwarning = lambda message, *_: f"note: {message}\n"
    warnings.simplefilter("once", UserWarning)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="replace")  # a terminal may know no "±"


def one_line(error):
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def say(text, end="\n"):
    """Print; a reader who has gone away is no reason to end a training."""
    try:
        print(text, end=end, flush=True)
    except OSError:
        silence()


def silence():
    """From now on standard output goes nowhere, at the end of Python too."""
    sys.stdout = open(os.devnull, "w")
    os.dup2(sys.stdout.fileno(), 1)


class Progress:
    """One line an epoch, renewed on a terminal, else every tenth or after some seconds."""

    def __init__(self, seed, settings, seeds_after, shape, quiet):
        self.seed, self.epochs, self.seeds_after = seed, settings["epochs"], seeds_after
        self.trial, starts = min(self.epochs, settings.get("trial", 0)), settings.get("n_starts", 1)
        self.starts = starts if starts > 1 else 0  # one network alone is not tried first
        self.quiet, self.told, self.shown = quiet, 0, 0
        N, T, D = shape
        wait = f"seed {seed}: no epoch after {PATIENCE} s; {N} series of {T} steps, {D} variates"
        wait += "; fewer --max-keys take less time" if T > 1000 else ""
        self.timer = threading.Timer(PATIENCE, lambda: quiet or say(wait))
        self.timer.daemon = True
        self.timer.start()

    def start(self):
        """From here on the epochs are timed."""
        self.begun = time.perf_counter()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.timer.cancel()
        if self.told and sys.stdout.isatty():
            say("")  # the next line is no longer progress

    def show(self, record):
        """The epoch's record, and the time that all seeds may still take, at most."""
        self.timer.cancel()
        self.shown += 1
        now, epoch, terminal = time.perf_counter(), record["epoch"], sys.stdout.isatty()
        if self.quiet or not (terminal or epoch % 10 == 0 or now - self.told >= PATIENCE):
            return
        self.told = now
        before = tried = self.starts * self.trial  # epochs of all trials of a seed
        at = f"{epoch}/{self.epochs}"
        if "trial" in record:
            before = (record["trial"] - 1) * self.trial
            at = f"trial {record['trial']} of {self.starts}, {epoch}/{self.trial}"
        left = (tried + self.epochs) * (1 + self.seeds_after) - before - epoch
        left = math.ceil((now - self.begun) / self.shown * left)
        left = f"{left}s" if left < 100 else f"{math.ceil(left / 60)}min"
        skip = ("epoch", "total", "loss", "seconds", "label_change", "hidden", "trial", "contrast")
        terms = [f"{name} {value:.2f}" for name, value in record.items() if name not in skip]
        terms += [f"changed {record['label_change']:.3f}"] if "label_change" in record else []
        width = min(80, shutil.get_terminal_size().columns) - 1
        line = f"seed {self.seed} {at} ≤{left} {' '.join(terms)}"[:width]
        say("\r" + line.ljust(width), end="") if terminal else say(line)
