"""What can go wrong on the local machine; the docstring of a type is its message."""

from __future__ import annotations

from proto.errors import SkelgraphError


class LocalStackError(SkelgraphError):
    """The local stack cannot run."""

    code = "local_stack_failed"


class PortTaken(LocalStackError):
    """The port is in use."""

    code = "port_taken"


class ProgramMissing(LocalStackError):
    """A program of the local stack is not installed; install skelgraph with its extra `local`."""

    code = "program_missing"


class ProcessDied(LocalStackError):
    """A process of the local stack ended."""

    code = "process_died"


class NotReady(LocalStackError):
    """A process of the local stack did not become ready."""

    code = "not_ready"


class StackRunning(LocalStackError):
    """A local stack is running already."""

    code = "stack_running"


class StoreInUse(LocalStackError):
    """Another nats-server uses the store."""

    code = "store_in_use"


class ModelUnavailable(LocalStackError):
    """The model cannot be had."""

    code = "model_unavailable"
    retryable = True


class UnknownModel(LocalStackError):
    """The model is neither in the table nor a GGUF file."""

    code = "unknown_model"


class NotEnoughDisk(LocalStackError):
    """There is not enough disk space."""

    code = "not_enough_disk"


class Interrupted(LocalStackError):
    """The start was interrupted."""

    code = "interrupted"
