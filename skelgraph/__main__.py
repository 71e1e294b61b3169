"""`skelgraph`, or `python -m skelgraph`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C before a command has begun ends it quietly."""
    try:
        # Imported here, so that Ctrl-C while they load is caught too.
        from skelgraph import cli, cli_admin, cli_auth, cli_dead  # noqa: F401 - they add their commands
        from skelgraph.app import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
