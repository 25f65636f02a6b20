"""The command line: parse, call the pipeline, print. Exit 0 done, 1 the answer is no, 2 could not run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from facviz.cli.parser import build_parser
from facviz.errors import FacvizError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors the user can act on become one sentence on stderr."""
    # Busy-waiting OpenMP threads make every step several times slower as soon as a core is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = build_parser().parse_args(argv)
    try:
        from facviz.cli.commands import COMMANDS  # after --help, which stays light

        result, code = COMMANDS[arguments.command](arguments)
        if arguments.json:
            print(json.dumps(result, ensure_ascii=False))
        else:
            from facviz.cli.report import describe

            print(describe(arguments.command, result))
    except FacvizError as error:
        print(f"facviz: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("facviz: stopped; run the same command again to continue where it was.", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except OSError as error:
        print(f"facviz: {error.filename or 'The system'}: {error.strerror}; check it and try again.", file=sys.stderr)
        return 2
    return code
