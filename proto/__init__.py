"""The contract between clients and services: messages, subjects, codec and errors.

Nothing in here does I/O or knows NATS beyond the names of its subjects.
"""
