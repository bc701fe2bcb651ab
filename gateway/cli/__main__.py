"""`python -m gateway.cli`: the command, for processes that start each other."""

from gateway.cli.app import main

main()
