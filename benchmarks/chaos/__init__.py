"""Chaos: many clients work while servers and workers are killed at random; then everything is accounted for.

    recipes    what is trained, each always the same
    strangers  clients that start, watch, cancel, predict, move aliases and delete, and write down what they were told
    killer     sends SIGKILL, and starts servers again
    control    the same trainings on a server that nobody troubles
    audit      holds what is on the server against what the clients were told, and against the control
    report     the counts

``python -m benchmarks.chaos --seconds 120 --kills 24 --seed 1``
"""
