"""The command line. The only part that prints; it imports the heavy parts when a command needs them."""

from __future__ import annotations

import sys

from foretaste.errors import ForetasteError


def main(arguments: list[str] | None = None) -> None:
    """Entry point: one line and exit code 2 for bad input, 1 for failed trials, 130 after Ctrl-C."""
    from foretaste.cli.app import app

    given = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in given
    words = [word for word in given if word != "--debug"] or ["--help"]
    try:
        code = app(args=words, prog_name="foretaste", standalone_mode=False)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if debug:
            raise
        print(f"foretaste: {' '.join(_explain(error).split())}", file=sys.stderr)
        sys.exit(2)
    if code == 130:
        print("foretaste: interrupted; the same command continues an audit or a pre-training.", file=sys.stderr)
    sys.exit(code or 0)


def _explain(error: Exception) -> str:
    if isinstance(error, ForetasteError):
        return str(error)
    # A word that the parser does not understand. Typer's exceptions have no public home, but these two members.
    if message := getattr(error, "format_message", None):
        command = getattr(getattr(error, "ctx", None), "command_path", "foretaste")
        return f"{str(message()).rstrip('.')}; see `{command} --help`."
    if isinstance(error, MemoryError):
        return "out of memory; pass fewer rows (--limit) or a smaller encoder."
    return f"internal error, {type(error).__name__}: {error}; run again with --debug for the traceback."
