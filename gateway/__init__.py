"""The processes of Answerable, and how a person starts them.

A *gateway worker* (``proxy``) stands in front of model endpoints and records every decision before its answer ends.
The *keeper* (``keeper``) carries what workers recorded to ClickHouse, signs checkpoints and schedules explanations.
The *desk* (``desk``) answers why. ``serve.py`` runs all of them on one host, ``cli`` is the command line, ``demo``
shows it on real data and before somebody's own model.
"""
