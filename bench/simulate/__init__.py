"""Scheduling policies in a discrete-event simulation, and against the real services."""
