"""Seeds side by side: each in a process of its own, as many at a time as asked."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import torch

from support.progress import one_line, open_streams

FAILURES = (ValueError, OSError, ArithmeticError, MemoryError, BrokenProcessPool)


def side_by_side(work, jobs, at_once, ended):
    """work(*job) for each of `jobs`, (..., seed), then ended(seed); no process outlives the call.

    The first that fails ends all, in one line: a ValueError for a user's mistake, else an OSError.
    """
    # Spawned: a fork would share torch's threads, and with them hang.
    context, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(at_once, context, begin, (threads,)) as pool:
        try:
            seeds = {pool.submit(work, *job): job[-1] for job in jobs}
            for job in as_completed(seeds):
                if isinstance(error := job.exception(), FAILURES):
                    kind = ValueError if isinstance(error, ValueError) else OSError
                    raise kind(f"seed {seeds[job]}: {one_line(error)}")
                job.result()  # any other error is a bug of ours
                ended(seeds[job])
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def begin(threads):
    """In each new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    open_streams()
    torch.set_num_threads(threads)  # the same everywhere, for the same bits
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent():
    """End this process when its parent has been killed: the next run must have the folder alone."""
    multiprocessing.parent_process().join()
    os._exit(2)
