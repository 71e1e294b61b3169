"""Checks of deploy/: rendered, validated, and compared with the code; `make k8s-check`."""
