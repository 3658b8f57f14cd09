"""The commands of train.py, a module each.

Each has ``HELP``, ``DESCRIPTION``, ``add_arguments(parser)``, and ``run(args, rank, number)``, which runs it as one of
several processes and returns the exit code.
"""
