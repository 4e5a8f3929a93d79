"""Seeds side by side: each in a process of its own, as many at a time as asked."""

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import wait

import torch

from support.progress import one_line, open_streams


def side_by_side(work, jobs, at_once, ended):
    """work(*job) for each of `jobs`, (..., seed), so many at once; then ended(seed) for each.

    ValueError, in one line, when one fails; whatever happens, none outlives this call.
    """
    # A fresh process each: a fork would share torch's threads, and with them hang.
    context = multiprocessing.get_context("spawn")
    waiting, running, told = list(jobs), {}, context.SimpleQueue()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                # The same number of threads everywhere, for the same bits.
                given = (torch.get_num_threads(), told, work, job)
                process = context.Process(target=one_job, args=given)
                process.start()
                running[process.sentinel] = job[-1], process
            for sentinel in wait(running):
                seed, process = running.pop(sentinel)
                process.join()
                if process.exitcode:
                    end = f"its process ended with status {process.exitcode}"
                    raise ValueError(f"seed {seed}: {end if told.empty() else told.get()}")
                ended(seed)
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


def one_job(threads, told, work, job):
    """In the new process: work(*job); an error goes to the parent, which prints it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    open_streams()
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        work(*job)
    except (ValueError, OSError, ArithmeticError, MemoryError) as error:
        told.put(one_line(error))
        raise SystemExit(2) from None


def end_with_parent():
    """End this process when its parent has been killed: the next run must have the folder alone."""
    while multiprocessing.parent_process().is_alive():
        time.sleep(0.2)
    os._exit(2)
