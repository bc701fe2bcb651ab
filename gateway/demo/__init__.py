"""Showing Answerable on real data (`demo`) and before somebody's own model (`try`).

*Applicants* are 1,989 real mortgage applications in Boston with the banks' real answers (``applicants.py``). A model is
trained on part of them (``train.py``) and served in a process of its own (``model_server.py``), a *bank* sends the
others through the gateway (``bank.py``), beside a whole *host* started for it (``host.py``).
"""
