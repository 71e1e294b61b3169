"""Chaos: real processes under load and faults by seed, and the audit of what they left."""
