"""The Dockerfile: linted, and its steps carried out in an empty folder where no Docker is."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from docs.generate import services
from tests.k8s.rendering import ROOT

DOCKERFILE: Final = (ROOT / "Dockerfile").read_text()
USER: Final = 10001


def instructions(name: str) -> list[str]:
    """The arguments of each instruction of this name, continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [
        line.removeprefix(f"{name} ") for line in joined.splitlines() if line.startswith(f"{name} ")
    ]


def test_the_linter_has_no_findings() -> None:
    beside = Path(sys.executable).parent / "hadolint"
    hadolint = str(beside) if beside.is_file() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("there is no hadolint: it comes with the extra `dev`")
    done = subprocess.run(
        [hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_pinned_by_a_digest_that_must_be_given() -> None:
    assert all("@${PYTHON_DIGEST}" in base for base in instructions("FROM"))
    assert "PYTHON_DIGEST" in instructions("ARG")


def test_the_image_runs_as_the_user_that_the_manifests_name() -> None:
    assert instructions("USER") == [f"{USER}:{USER}"]
    for name in ("planner", "assembler", "gateway", "pool/worker", "provision"):
        manifest = (ROOT / "deploy" / "k8s" / "base" / f"{name}.yaml").read_text()
        assert f"runAsUser: {USER}" in manifest
        assert re.search(r"args: \[services\.\w+\]", manifest)
    assert instructions("ENTRYPOINT") == ['["python", "-m"]']


def test_the_builder_is_sent_what_is_copied_and_little_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().split("\n")
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    copied = {one.split()[0] for one in instructions("COPY") if not one.startswith("--from")}
    assert copied == allowed


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """The image's root, as far as the Dockerfile makes it: readable by all, writable by nobody."""
    root = Path(tempfile.mkdtemp(prefix="skelgraph-image-"))
    root.chmod(0o755)
    try:
        for command in instructions("RUN"):
            subprocess.run(adapted(command, root), check=True, capture_output=True)
        for one in instructions("COPY"):
            if not one.startswith("--from"):
                copy(*one.split(), root=root)
        subprocess.run(["chmod", "-R", "a-w,a+rX", str(root)], check=True)
        yield root
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(root)], check=True)
        shutil.rmtree(root)


def adapted(command: str, root: Path) -> list[str]:
    """A RUN instruction for this machine: our Python, and the image's folders below `root`."""
    words = shlex.split(command)
    assert words[0] == "python", "only Python is called: there is no shell to go by"
    # The packages' pip is ours, the image's interpreter one that anybody may run.
    python = public_python() if words[2] == "venv" else sys.executable
    places = {
        "/opt/skelgraph": str(root / "opt" / "skelgraph"),
        "/tmp/runtime.txt": str(ROOT / "requirements" / "runtime.txt"),
    }
    for place, here in places.items():
        words = [word.replace(place, here) for word in words]
    return [python, *words[1:]]


def public_python() -> str:
    """An interpreter of this version that the image's user may run, too."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/local/bin/{version}", f"/usr/bin/{version}"):
        real = Path(python).resolve()
        if real.is_file() and all(one.stat().st_mode & 0o001 for one in [real, *real.parents]):
            return python
    pytest.skip(f"{version} of this machine is not for everybody")


def copy(source: str, target: str, *, root: Path) -> None:
    """A COPY instruction, as .dockerignore leaves it."""
    if target.startswith("/tmp/"):
        return
    place, origin = root / target.removeprefix("/"), ROOT / source
    place.parent.mkdir(parents=True, exist_ok=True)
    if origin.is_dir():
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(origin, place, ignore=ignored)
    else:
        shutil.copy(origin, place)


def run_in(image: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the entry point as the image's user, with its environment and nothing of ours."""
    env = {"PATH": f"{image}/opt/skelgraph/bin", "PYTHONPATH": f"{image}/app"}
    for line in instructions("ENV"):
        env |= {
            key: value
            for key, value in re.findall(r"(PYTHON\w+)=(\S+)", line)
            if key != "PYTHONPATH"
        }
    as_user = {"user": USER, "group": USER, "extra_groups": []} if os.getuid() == 0 else {}
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [f"{image}/opt/skelgraph/bin/python", "-m", *argv],
        cwd=f"{image}/app",
        env=env,
        capture_output=True,
        text=True,
        check=False,
        **as_user,  # type: ignore[call-overload]
    )
    return done


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("service", sorted(services()))
def test_each_service_starts_as_nobody_on_a_tree_that_is_read_only(
    image: Path, service: str
) -> None:
    done = run_in(image, f"services.{service}", "--help")
    assert done.returncode == 0, done.stderr
    assert "SKELGRAPH_NATS_URL" in done.stdout


@pytest.mark.long
def test_neither_pip_nor_a_compiled_file_nor_a_test_is_in_the_image(image: Path) -> None:
    found = [str(path.relative_to(image)) for path in image.rglob("*")]
    for pattern in ("*/pip/*", "app/*.pyc", "*/gcc", "app/tests/*", "app/skelgraph/*"):
        assert not fnmatch.filter(found, pattern), pattern
    assert run_in(image, "pip", "--version").returncode != 0
