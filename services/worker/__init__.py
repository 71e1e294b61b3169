"""The worker: a node becomes a text."""
