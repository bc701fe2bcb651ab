"""The command `answerable`: each file holds the commands of one kind, and none holds logic of its own.

Exit codes, the same for every command: 0 done (or sound), 1 the thing asked about is broken, 2 the command
could not be carried out (bad configuration, port in use, nothing to tell from).
"""

from gateway.cli.app import main

__all__ = ["main"]
