"""The desk: the justification API and the console."""
