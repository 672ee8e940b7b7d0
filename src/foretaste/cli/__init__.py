"""The command line. The only part that prints; it imports the heavy parts when a command needs them."""

from __future__ import annotations

import sys

from foretaste.errors import ForetasteError


def main(arguments: list[str] | None = None) -> None:
    """Entry point: one line and exit code 2 for bad input, 1 for failed trials, 130 after Ctrl-C."""
    from foretaste.cli.app import app

    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        app(args=[word for word in given if word != "--debug"], prog_name="foretaste")
    except ForetasteError as error:
        if debug:
            raise
        print(f"foretaste: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("foretaste: interrupted; the same command continues where it stopped.", file=sys.stderr)
        sys.exit(130)
    except MemoryError:
        if debug:
            raise
        print("foretaste: out of memory; pass fewer rows (--limit) or a smaller encoder.", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        print(f"foretaste: internal error, {kind}: {error}; run again with --debug for the traceback.", file=sys.stderr)
        sys.exit(2)
