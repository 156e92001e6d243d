"""Run the parts of a batch through Ray Data: a pool of actors, each with a scorer of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptray.calibrate.batch.attempts import Starts, Stopped
from promptray.calibrate.batch.parts import Part
from promptray.calibrate.batch.worker import Work, Worker
from promptray.runtime.cores import set_decode_threads
from promptray.runtime.errors import PromptRayError

#: Bytes: numbers of parts and paths of images travel through it; scores do not.
_OBJECT_STORE = 128 * 2**20
#: What a worker says of why it stopped, to be found in Ray's text around it.
_SAID = "promptray worker: <{}>"
# Ray tells its makers of every start unless it is told not to; what it logs otherwise is about itself.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
# Seconds. A loaded machine of two cores has been seen to take longer than Ray waits for its own processes.
_PATIENT = {
    "RAY_NUM_REDIS_GET_RETRIES": "120",
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_worker_register_timeout_seconds": "300",
}
# For one machine. The first is read when Ray is first imported: listen on 127.0.0.1 alone, as on Windows
# and macOS. The secret that its processes know each other by would otherwise be kept in the user's home; Ray
# remembers it for as long as this process lives.
_ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}


class _Actor:
    """A :class:`Worker` as Ray Data calls it: a table with one part in, its number out."""

    def __init__(self, work: Work, workers: int, threads: int) -> None:
        with _without_names():
            set_decode_threads(threads)
            self._starts = Starts(work.folder, workers)
            self._starts.another()
            self._worker = Worker(work)

    def __call__(self, table: Any) -> dict[str, list[int]]:
        with _without_names():
            (given,) = table.to_pylist()
            images = tuple(Path(os.fsdecode(each)) for each in given["images"])
            self._worker.score(Part(given["number"], given["first"], images))
            self._starts.forget()
            return {"number": [given["number"]]}


@contextlib.contextmanager
def _without_names() -> Iterator[None]:
    """Let no text of an unforeseen error out of a worker: it may name files, and Ray logs it."""
    try:
        yield
    except Stopped as error:
        raise Stopped(_SAID.format(error)) from None
    except PromptRayError as error:
        raise Stopped(_SAID.format(error.code)) from None
    except OSError as error:
        raise Stopped(_SAID.format(error.strerror or type(error).__name__)) from None
    except Exception as error:  # noqa: BLE001 - whatever it is, its text must not leave
        raise Stopped(_SAID.format(type(error).__name__)) from None


def run_parts(
    parts: Sequence[Part], work: Work, *, workers: int, threads: int, gpus: int, address: str | None
) -> Iterator[int]:
    """Score parts, each by one of the workers, and yield the number of each as it is done.

    Parameters
    ----------
    parts : sequence of Part
    work : Work
    workers : int
        Actors of the pool.
    threads : int
        Processor cores that each takes, and threads that it decodes JPEG 2000 with.
    gpus : int
        GPUs that each takes.
    address : str or None
        Of a Ray cluster that is there; None starts one on this machine and ends it.

    Raises
    ------
    PromptRayError
        ``batch.worker`` where the workers cannot go on; what they finished stays.
    """
    workers = min(workers, len(parts))
    starts = Starts(work.folder, workers)
    starts.forget()
    with _ray(address, workers * threads, workers * gpus) as ray:
        items = [
            {
                "number": each.number,
                "first": each.first,
                "images": [os.fsencode(path) for path in each.images],
            }
            for each in parts
        ]
        done = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Actor,
            fn_constructor_args=[work, workers, threads],
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            num_cpus=threads,
            num_gpus=gpus,
        )  # Ray Data starts dead actors again without end; the bound is `Starts`
        try:
            for each in done.iter_rows():
                yield int(each["number"])
        except Exception as error:  # Ray's own, and whatever a worker raised
            raise _stopped(error) from error
    starts.forget()


@contextlib.contextmanager
def _ray(address: str | None, cpus: int, gpus: int) -> Iterator[Any]:
    """Join a cluster, or start one that nobody else can reach and leave nothing of it behind."""
    handler = signal.getsignal(signal.SIGTERM)  # which Ray replaces
    with (
        tempfile.TemporaryDirectory(prefix="promptray-ray-", ignore_cleanup_errors=True) as folder,
        _environment(_QUIET | _PATIENT if address else _QUIET | _PATIENT | _ALONE),
        contextlib.redirect_stdout(sys.stderr),  # a thread of Ray prints what its processes say
    ):
        import ray
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        own: dict[str, Any] = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE,
            "_temp_dir": folder,
            "_node_ip_address": "127.0.0.1",
        }
        try:
            try:
                with _unnamed_job():
                    ray.init(address=address or "local", **common, **({} if address else own))
            except Exception as error:  # of any type, a bare Exception where its processes start too slowly
                raise _stopped(error) from error
            yield ray
        finally:
            ray.shutdown()
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)


@contextlib.contextmanager
def _unnamed_job() -> Iterator[None]:
    """Keep the command line, which may name files, from Ray: a cluster keeps and shows that of each job."""
    import ray._private.utils as utils  # there is no option for it

    command_line = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: "promptray batch"
    try:
        yield
    finally:
        utils.get_entrypoint_name = command_line


@contextlib.contextmanager
def _environment(changed: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _stopped(error: Exception) -> PromptRayError:
    """Return the error of workers that stopped, with what they said themselves of all that Ray says."""
    said = re.search(_SAID.format("([^<>]*)"), str(error))
    return PromptRayError(
        "batch.worker",
        "the workers cannot go on; finished parts are kept",
        found=said[1] if said else type(error).__name__,
        cure="look at the machine's memory and disk, then call the same command again; "
        "fewer --workers take less memory",
    )
