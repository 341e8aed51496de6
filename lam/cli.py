"""The command `lam`: collects the packages' commands and turns errors into one message and an exit code.

Commands come from the entry points of the group `lam.commands`, so that `lam` need not know
`sweeps` or `analysis`. Their modules import only typer at the top: help costs neither torch nor ray.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import entry_points
from types import FrameType
from typing import Any

import typer

from record.errors import MEMORY_REMEDY, EnvironmentFailed, LamError, is_out_of_memory
from record.text import shown

PACKAGES = ("record", "lam", "sweeps", "analysis")  # one of these missing is a bug; another package, an environment
app = typer.Typer(
    name="lam",
    help="Train, sweep, compare and promote latent action models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: lam data demo data, then lam init --preset laptop.",
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        from lam import __version__

        typer.echo(f"lamsweep {__version__}")
        raise typer.Exit


@lru_cache(maxsize=1)
def build() -> typer.Typer:
    """The application with every installed package's commands."""
    for point in sorted(entry_points(group="lam.commands"), key=lambda point: point.name):
        point.load()(app)
    return app


@lru_cache(maxsize=1)
def _command() -> Callable[[list[str] | None], Any]:
    return typer.main.get_command(build())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line (this process's, where none is given) and exit with its code; SIGTERM is as Ctrl-C."""
    code = [130]

    def terminate(number: int, frame: FrameType | None) -> None:
        code[0] = 143
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        _command()(arguments)
    except LamError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, SystemExit) as ending:
        if isinstance(ending, SystemExit) and ending.code != 130:  # which is what Typer makes of a KeyboardInterrupt
            raise
        _fail("interrupted; give the same command again to go on", code[0])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except ModuleNotFoundError as error:
        if (module := (error.name or "lam").partition(".")[0]) in PACKAGES:
            raise
        _fail(f"this needs the package {module}, which is not installed; install lamsweep with all that it requires "
              "(pip install lamsweep)", EnvironmentFailed.exit_code)
    except OSError as error:
        from record import files

        _fail(f"the system refused: {error}{files.room(error)}; mend that and run the same command again",
              EnvironmentFailed.exit_code)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first = (str(error) or type(error).__name__).splitlines()[0]
        _fail(f"memory ran out ({first[:300]}); {MEMORY_REMEDY}", EnvironmentFailed.exit_code)


def _fail(message: str, code: int) -> None:
    print(f"lam: {shown(message)}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
