"""The lyra-worlds command: a literal table of verbs, imported when run. The one place where core names tasks."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from lyra_core import __version__
from lyra_core.errors import Cancelled, LyraError

VERBS: dict[str, str] = {
    "create": "lyra_core.commands:create",
    "import": "lyra_core.import_command:import_",
    "export": "lyra_core.export_command:export",
    "extend": "lyra_core.commands:extend",
    "revert": "lyra_core.commands:revert",
    "episodes": "lyra_core.commands:episodes",
    "play": "lyra_tasks.commands:play",
    "models": "lyra_core.models_command:models",
    "doctor": "lyra_core.doctor:doctor",
}
"""Verb -> module:function. The function's arguments and docstring are the verb's options and help."""

SUMMARIES: dict[str, str] = {
    "create": "make a world from one photo",
    "import": "make a world from a scan, a capture, a mesh, splats or another generator's output",
    "export": "write a finished world in another tool's format",
    "extend": "walk on: more frames along another camera path",
    "revert": "go back to an earlier chunk of frames",
    "episodes": "sample navigation episodes for a robot radius",
    "play": "let the oracle agent walk an episode and film it",
    "models": "list, convert and verify the weights of generator lyra2",
    "doctor": "which backends work here, why not, and what to install",
}
"""Kept here, so that the overview needs none of the verbs' modules."""

STANDALONE = "pip install 'lyra-worlds[standalone]'"
EXIT_OK, EXIT_ERROR, EXIT_INTERRUPTED = 0, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0, 2 for an error of the caller, 130 when interrupted.

    A verb's function may return an exit status; None counts as 0.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return EXIT_OK if arguments else EXIT_ERROR
    if arguments[0] == "--version":
        print(__version__)
        return EXIT_OK
    verb, rest = arguments[0], arguments[1:]
    try:
        return int(_run(verb, rest) or EXIT_OK)
    except (KeyboardInterrupt, Cancelled):
        print("lyra-worlds: stopped; what is finished is on disk. The same command goes on from there.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except LyraError as error:
        print(f"lyra-worlds {verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_ERROR
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "lyra_core":
            raise
        print(f"lyra-worlds {verb}: {error.name} is not installed. To get it: {STANDALONE}", file=sys.stderr)
        return EXIT_ERROR
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"lyra-worlds {verb}: {where}{error.strerror or error}", file=sys.stderr)
        return EXIT_ERROR


def overview() -> str:
    """Return the help text of the command itself."""
    rows = "\n".join(f"  {verb:<10} {SUMMARIES[verb]}" for verb in VERBS)
    return f"""usage: lyra-worlds VERB [options]

One photo in; a walkable, simulation-ready world and navigation environments out.

verbs:
{rows}

lyra-worlds VERB --help shows a verb's options; --version the version."""


def _run(verb: str, arguments: list[str]) -> int | None:
    if verb not in VERBS:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.0)
        raise LyraError(f"unknown verb; nearest is {near[0]!r}; known: {', '.join(VERBS)}")
    module, _, name = VERBS[verb].partition(":")
    function = getattr(importlib.import_module(module), name)
    import tyro

    return tyro.cli(function, args=arguments, prog=f"lyra-worlds {verb}")


if __name__ == "__main__":
    sys.exit(main())
