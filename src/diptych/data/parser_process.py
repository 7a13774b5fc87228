"""Parsers of strangers' files in a process of their own, with limits: one that crashes, hangs or eats memory costs a
file, not the run.

PDFium and ffmpeg are large C and C++ libraries that read whatever bytes they are given. They run in a child that hands
back plain values: JSON, and arrays of bytes, whose sizes are checked; nothing of what it says is unpickled or run. The
child has limits of its own (RLIMIT_AS, RLIMIT_CPU, no core, no file may grow) and is killed when it is silent for too
long. That is a guard against faults; against an attacker who takes over the child it is none, since it runs as the
same user: put the whole command into a container for that.

The child begins in a fresh interpreter, since a fork would copy this one's threads' locks. It is asked again and again,
and begun anew after it failed, or was asked `ASKED` times.
"""

import contextlib
import importlib
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np

ASKED = 200
PATIENCE = 5.0
"""How many times its processor time a child may take by the clock: it may have to wait for a core."""
MAX_SAID, MAX_ARRAY = 16 << 20, 1 << 30
"""Bytes of an answer's words and of its array."""
_HEAD = struct.Struct(">QQ")

Answers = Iterator[tuple[dict[str, Any], np.ndarray | None]]
Parser = Callable[[dict[str, Any], bytes], Answers]
"""What runs in the child: of JSON values and bytes it makes answers, each JSON values and perhaps an array of uint8."""


class Answer(NamedTuple):
    """JSON values, and an array of uint8."""

    said: dict[str, Any]
    array: np.ndarray | None


class ParserFailed(Exception):
    """The child could not; `reason` is parser_crashed, parser_timed_out, parser_out_of_memory or parser_failed."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message

    def __str__(self) -> str:
        return self.message


class ParserProcess:
    """A parser, ``module:function``, to be asked. It starts when it is first asked; close it, or use it in a `with`.

    seconds  of processor time for each answer; by the clock it has `PATIENCE` times that
    memory_gb  of address space, all it has loaded included
    """

    def __init__(self, parser: str, seconds: float = 60.0, memory_gb: float = 4.0) -> None:
        self.parser, self.seconds, self.memory_gb = parser, seconds, memory_gb
        self._child: subprocess.Popen[bytes] | None = None
        self._asked = 0
        self._late = False

    def __enter__(self) -> "ParserProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, about: dict[str, Any], data: bytes = b"") -> Iterator[Answer]:
        """What the parser answers, one after the other. Raises ParserFailed where it fails; answers before that hold.

        A child that was asked before may have been damaged by an earlier file: if it fails at once, a new one is asked.
        """
        fresh, whole = self._begin(), False
        try:
            try:
                answer = self._first(about, data)
            except ParserFailed as error:
                if fresh or error.reason not in ("parser_crashed", "parser_out_of_memory"):
                    raise
                self.close()
                self._begin()
                answer = self._first(about, data)
            while answer is not None:
                yield answer
                answer = self._receive()
            whole = True
        except ParserFailed as error:
            whole = error.reason == "parser_failed"  # it has said so, and waits for the next
            raise
        finally:
            if not whole:  # it failed, or whoever asked has gone: what it still says must not answer the next
                self.close()

    def close(self) -> None:
        """End the child, whatever it does."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        child.wait()

    def _begin(self) -> bool:
        """Have a child; whether it is a new one."""
        if self._child is not None and self._asked < ASKED:
            self._asked += 1
            return False
        self.close()
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        paths = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONDONTWRITEBYTECODE": "1"}
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, self.parser, str(self.seconds), str(self.memory_gb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **single, **paths},
            start_new_session=True,  # Ctrl-C is for us, who then end it
        )
        self._asked = 1
        return True

    def _first(self, about: dict[str, Any], data: bytes) -> Answer | None:
        with self._clock() as child, self._fate():
            assert child.stdin is not None
            _write(child.stdin, json.dumps(about).encode(), data)
        return self._receive()

    def _receive(self) -> Answer | None:
        """The next answer; None: that was all."""
        with self._clock() as child, self._fate():
            assert child.stdout is not None
            said, raw = _read(child.stdout, MAX_SAID, MAX_ARRAY)
            found = json.loads(said)
            if found.get("end"):
                return None
            if failed := found.get("failed"):
                reason = failed if failed == "parser_out_of_memory" else "parser_failed"
                raise ParserFailed(reason, f"a parser must read the file; it said: {str(found.get('message'))[:300]}")
            array = None
            if found["shape"] is not None:
                array = np.frombuffer(raw, np.uint8).reshape([int(n) for n in found["shape"]])
            return Answer(dict(found["said"]), array)

    @contextlib.contextmanager
    def _clock(self) -> Iterator["subprocess.Popen[bytes]"]:
        """The child, which is killed if the block takes too long."""
        child = self._child
        assert child is not None

        def kill() -> None:
            self._late = True
            child.kill()

        self._late = False
        timer = threading.Timer(PATIENCE * self.seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            yield child
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def _fate(self) -> Iterator[None]:
        """Whatever goes wrong in talking to the child is a failure of it."""
        try:
            yield
        except ParserFailed:
            raise
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> ParserFailed:
        child = self._child
        assert child is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10.0 if isinstance(error, OSError | EOFError) else 0.0)
        code = child.returncode
        if self._late or (code is not None and -code == getattr(signal, "SIGXCPU", None)):
            limit = f"{self.seconds:g} s of processor time, or {PATIENCE * self.seconds:g} s by the clock"
            return ParserFailed(
                "parser_timed_out", f"a parser must answer within {limit}; it did not. Leave the file out."
            )
        what = "it said what it must not" if code is None else f"its process ended ({_ending(code)})"
        return ParserFailed("parser_crashed", f"a parser must read the file; {what}. Leave the file out.")


def _ending(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"status {code}"
    except ValueError:
        return f"signal {-code}"


def _write(pipe: IO[bytes], said: bytes, raw: bytes) -> None:
    pipe.write(_HEAD.pack(len(said), len(raw)) + said)
    pipe.write(raw)
    pipe.flush()


def _read(pipe: IO[bytes], most_said: int, most_raw: int) -> tuple[bytes, bytearray]:
    """A message. Raises EOFError at its end or in the middle, ValueError for one that is too long."""
    said, raw = _HEAD.unpack(_exactly(pipe, _HEAD.size))
    if said > most_said or raw > most_raw:
        raise ValueError(f"a message must be at most {most_said:,} and {most_raw:,} bytes; got {said:,} and {raw:,}")
    return bytes(_exactly(pipe, said)), _exactly(pipe, raw)


def _exactly(pipe: IO[bytes], size: int) -> bytearray:
    found = bytearray(size)
    view, have = memoryview(found), 0
    while have < size:
        more = pipe.readinto(view[have:])  # type: ignore[attr-defined]  # a buffered pipe has it
        if not more:
            raise EOFError
        have += more
    return found


def serve(parser: str, seconds: float, memory_gb: float) -> None:
    """The child's life: requests from standard input, answers to standard output, until the former ends."""
    given, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand between the answers
    with contextlib.suppress(EOFError, BrokenPipeError):  # whoever asks has gone
        try:
            module, _, name = parser.partition(":")
            function: Parser = getattr(importlib.import_module(module), name)
            _limit(memory_gb)
        except Exception as error:
            function = _broken(error)
        while True:
            about, data = _read(given, 1 << 62, 1 << 62)
            _answer(function, json.loads(about), bytes(data), seconds, answers)


def _answer(function: Parser, about: dict[str, Any], data: bytes, seconds: float, out: IO[bytes]) -> None:
    try:
        _limit_time(seconds)
        for said, array in function(about, data):
            shape = None if array is None else list(array.shape)
            raw = b"" if array is None else np.ascontiguousarray(array, np.uint8).tobytes()
            _write(out, json.dumps({"said": said, "shape": shape}).encode(), raw)
            _limit_time(seconds)
        end: dict[str, Any] = {"end": True}
    except BrokenPipeError:
        raise
    except MemoryError:
        end = {"failed": "parser_out_of_memory", "message": "memory ran out."}
    except Exception as error:
        end = {"failed": "parser_failed", "message": f"{type(error).__name__}: {error}"}
    _write(out, json.dumps(end).encode(), b"")


def _broken(error: Exception) -> Parser:
    def function(about: dict[str, Any], data: bytes) -> Answers:
        raise error

    return function


def _limit(memory_gb: float) -> None:
    """After everything is imported. Where the system has no such limits there are none."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        for name, value in (("RLIMIT_AS", int(memory_gb * 2**30)), ("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", 0)):
            what = getattr(resource, name)
            hard = resource.getrlimit(what)[1]
            most = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(what, (most, most))


def _limit_time(seconds: float) -> None:
    """Processor time from now on; the kernel ends whoever takes more."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        soft = math.ceil(time.process_time() + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


if __name__ == "__main__":
    serve(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
