"""What an operator says, and the two doors that every process shares.

The words: *settings* are what a configuration file may say (``settings.py``, with ``route.py`` and
``callers.py``; typed and closed); a *configuration* is one loaded file with its digest (``load.py``), and every
entry names that digest; a *secret* is never in the file, only a reference to it (``secrets.py``); a
*registration* is the YAML file beside a model's artifact (``registration.py``). ``processes.py`` is the only
place that starts a process.

This is the lowest layer: it imports nothing of ``storage``, ``explainers`` or ``gateway``.
"""
