"""A hub that does not answer is found out within seconds, once, and said on one line."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest

from unteach.data.reading import read_examples
from unteach.errors import DataError, ModelError
from unteach.models import hub
from unteach.models.loading import check_loadable, load_model, load_tokenizer


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)


@pytest.fixture(params=["refuses", "silent"])
def unreachable(request: pytest.FixtureRequest, online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub whose port refuses connections, or takes them and says nothing."""
    monkeypatch.setattr(hub, "PATIENCE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        if request.param == "refuses":
            server.close()
        yield


@pytest.mark.parametrize("load", [load_model, load_tokenizer, check_loadable])
def test_a_model_that_cannot_be_reached(load: object, unreachable: None) -> None:
    start = time.monotonic()
    with pytest.raises(ModelError, match="no-one/no-model: no directory.*the hub does not answer") as caught:
        load("no-one/no-model")  # type: ignore[operator]
    assert time.monotonic() - start < 5  # the libraries alone: 20 s and more
    assert "\n" not in str(caught.value) and "://" not in str(caught.value)


@pytest.mark.parametrize("source", ["tofu:forget10", "no-one/no-rows"])
def test_rows_that_cannot_be_reached(source: str, unreachable: None) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match="the hub does not answer.*local copy") as caught:
        read_examples(source, "negative")
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value) and "://" not in str(caught.value)
    assert not huggingface_hub.constants.HF_HUB_OFFLINE and not datasets.config.HF_HUB_OFFLINE  # as it was before


def test_a_name_that_takes_long_to_look_up(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(hub, "_answers", lambda: time.sleep(3) or True)
    start = time.monotonic()
    assert "does not answer" in hub.out_of_reach()
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(("status", "reached"), [(200, True), (307, True), (404, True), (502, False)])
def test_any_answer_but_a_broken_gateway_counts(
    status: int, reached: bool, online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert (hub.out_of_reach() == "") is reached


def test_offline_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "_answers", lambda: pytest.fail("asked"))
    assert "HF_HUB_OFFLINE" in hub.out_of_reach()


@pytest.mark.parametrize(
    ("text", "is_id"),
    [
        ("owner/name", True),
        ("o-1/n.a_me", True),
        ("name", False),
        ("a/b/c", False),
        ("./a", False),
        ("a/..", False),
        ("/a", False),
        ("a/", False),
        ("a b/c", False),
        ("", False),
        ("tofu:full", False),
    ],
)
def test_what_a_hub_id_looks_like(text: str, is_id: bool) -> None:
    assert hub.is_hub_id(text) is is_id


def test_a_mistyped_model_directory_is_never_asked_for(
    tmp_path: Path, online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "_answers", lambda: pytest.fail("asked"))
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "config.json").write_text("{}")
    (tmp_path / "my-modes").mkdir()  # holds no model: not offered
    with pytest.raises(ModelError, match="my-modl: no such model directory; did you mean 'my-model'?.*owner/name"):
        load_model("my-modl")
