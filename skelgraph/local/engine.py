"""One engine: llama.cpp's own HTTP server with continuous batching, in a process of its own.

`python -m skelgraph.local.engine --model FILE --port P --slots N --threads T` serves on the
loopback address until SIGTERM, SIGINT or the end of the process that started it. A prompt that
does not fit into a slot's context gets a 400 (`exceed_context_size_error`), an answer that
reaches its end is cut off (`finish_reason: length`); nothing is ever shifted out silently.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proto.errors import SkelgraphError
from skelgraph.local import guard, models, ports
from skelgraph.local.process import ProcessSpec

if TYPE_CHECKING:
    import xllamacpp

BATCH_TOKENS = 128  # a long prompt holds up the other slots for one batch at most
_READY_TIMEOUT_S = 120.0  # a large file from a slow disk
PROMPT_CACHE_MIB = 512  # prompts that lost their slot, kept in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What an engine is started with."""

    model: Path
    port: int
    slots: int
    context_tokens_per_slot: int
    threads: int
    verbose: bool = False

    def argv(self) -> tuple[str, ...]:
        """Return the command that starts this engine."""
        return (
            sys.executable,
            *("-m", "skelgraph.local.engine"),
            *("--model", str(self.model)),
            *("--port", str(self.port)),
            *("--slots", str(self.slots)),
            *("--context-tokens-per-slot", str(self.context_tokens_per_slot)),
            *("--threads", str(self.threads)),
            *(["--verbose"] if self.verbose else []),
        )

    def process_spec(self, name: str) -> ProcessSpec:
        """Return how to run this engine; llama.cpp has nothing to put away when it ends."""
        return ProcessSpec(
            name=name,
            argv=self.argv(),
            port=self.port,
            ready_path="/health",
            ready_timeout_s=_READY_TIMEOUT_S,
            stop_timeout_s=1.0,
        )


def main() -> None:
    """Serve until told to stop; exit with a message if the engine cannot start."""
    options = parse(sys.argv[1:])
    guard.tie_to_parent(os.getppid())
    # At their defaults the signals end the process at once, also while the model loads.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        server = serve(options)
    except SkelgraphError as error:
        sys.exit(error.message)
    except RuntimeError as error:
        sys.exit(f"llama.cpp cannot serve {options.model}: {error}")
    sys.stderr.write(f"serving {options.model.name} on {server.listening_address}\n")
    sys.stderr.flush()
    while True:
        signal.pause()


def parse(argv: list[str]) -> EngineOptions:
    """Return the options that a command line names."""
    parser = argparse.ArgumentParser(prog="python -m skelgraph.local.engine")
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--port", type=_positive, required=True, help="on the loopback address")
    parser.add_argument("--slots", type=_positive, default=4, help="sequences at once")
    parser.add_argument(
        "--context-tokens-per-slot", type=_positive, default=2048, help="prompt and answer"
    )
    parser.add_argument("--threads", type=_positive, default=1, help="for decoding and prefill")
    parser.add_argument("--verbose", action="store_true", help="llama.cpp's own log, to stderr")
    return EngineOptions(**vars(parser.parse_args(argv)))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def serve(options: EngineOptions) -> xllamacpp.Server:
    """Load the model and start the server's threads; it serves while the result is held.

    Raises:
        UnknownModel: The file is missing or is not GGUF.
        PortTaken: Somebody listens there.
        RuntimeError: llama.cpp refused; it has written why to stderr.
    """
    models.check_gguf(options.model)
    ports.claim(options.port, "an engine")
    import xllamacpp  # here: it loads 100 MB that only this process needs

    return xllamacpp.Server(_parameters(options))


def _parameters(options: EngineOptions) -> xllamacpp.CommonParams:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(options.model)
    parameters.model_alias = {options.model.stem}
    parameters.hostnames = [ports.HOST]
    parameters.port = options.port
    parameters.cors_origins = f"http://{ports.HOST}"  # no web page reads along
    _size(parameters, options)
    parameters.cont_batching = True
    parameters.cache_prompt = True
    parameters.ctx_shift = False
    parameters.use_jinja = True
    parameters.endpoint_metrics = True
    parameters.endpoint_slots = True
    parameters.endpoint_props = False  # its POST would change settings; GET /props is always on
    parameters.ui = False
    parameters.verbosity = 3 if options.verbose else 1
    return parameters


def _size(parameters: xllamacpp.CommonParams, options: EngineOptions) -> None:
    parameters.n_parallel = options.slots
    parameters.n_ctx = options.slots * options.context_tokens_per_slot
    parameters.n_batch = BATCH_TOKENS
    parameters.n_ubatch = BATCH_TOKENS
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.fit_params = False  # the sizes above are meant, whatever memory is free
    parameters.cpuparams.n_threads = options.threads
    parameters.cpuparams_batch.n_threads = options.threads


if __name__ == "__main__":
    main()
