"""The command line: parse, call the pipeline, print. Exit 0 done, 1 the answer is no, 2 could not run."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from facviz.cli.parser import build_parser
from facviz.cli.progress import say
from facviz.errors import FacvizError
from facviz.heap import freed_memory_kept
from facviz.jobs import JobReport

__all__ = ["main"]


class _Stopped(BaseException):
    """SIGTERM reached a job; no stage may take it for an error of its own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors the user can act on become one sentence on stderr."""
    # Busy-waiting OpenMP threads make every step several times slower as soon as a core is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    report = JobReport.from_environment()
    try:
        with _stoppable(report):
            return _run(argv, report)
    except FacvizError as error:
        return _could_not_run(report, " ".join(str(error).splitlines()))
    except (KeyboardInterrupt, _Stopped):
        say("stopped; run the same command again to continue where it was.")
        report.stopped()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        return _could_not_run(report, f"{error.filename or 'The system'}: {error.strerror}; check it and try again.")
    except Exception as error:
        if not report.is_job:
            raise
        traceback.print_exc()  # before the state, which says that the log has it
        report.failed(f"Something unexpected happened ({type(error).__name__}); the log shows where.")
    return 2


def _run(argv: Sequence[str] | None, report: JobReport) -> int:
    report.begin()
    arguments = build_parser().parse_args(argv)
    if arguments.command == "app":
        from facviz.cli.app import serve

        return serve(arguments)
    from facviz.cli.commands import COMMANDS  # after --help, which stays light

    with freed_memory_kept():
        result, code = COMMANDS[arguments.command](arguments)
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        from facviz.cli.report import describe

        print(describe(arguments.command, result))
    report.done(result)
    return code


def _could_not_run(report: JobReport, sentence: str) -> int:
    say(sentence)
    report.failed(sentence)
    return 2


@contextmanager
def _stoppable(report: JobReport) -> Iterator[None]:
    """Let SIGTERM end a job as Ctrl-C ends a command."""
    if not report.is_job:
        yield
        return

    def stop(_signal: int, _frame: object) -> None:
        raise _Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
