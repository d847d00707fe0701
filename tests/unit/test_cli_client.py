# SPDX-License-Identifier: Apache-2.0
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from support.ctl import ctl_with
from support.fake_api import FakeApi, RefusedError
from valkyrie.control.cli.client import Client, error_classes, error_from
from valkyrie.control.cli.exits import MEANINGS
from valkyrie.control.errors import InvalidInput, NotFound, Unavailable, ValkyrieError


def test_no_socket_says_how_to_start_the_daemon(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        Client(str(tmp_path / "none")).get("/v1/status")
    assert str(tmp_path / "none") in caught.value.what
    assert "systemctl start valkyried" in caught.value.hint


def test_a_socket_that_nobody_listens_on_is_unavailable(tmp_path: Path) -> None:
    path = str(tmp_path / "dead")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(Unavailable, match="nobody answers"):
        Client(path).get("/v1/status")


def test_silence_ends_with_the_timeout(tmp_path: Path) -> None:
    path = str(tmp_path / "silent")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        with pytest.raises(Unavailable, match=r"within 0\.05 s"):
            Client(path, timeout=0.05).get("/v1/status")


@pytest.mark.parametrize(
    "answer",
    [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"HTTP/1.1 200 OK\r\n\r\n{"],
)
def test_what_does_not_speak_the_api_is_unavailable(tmp_path: Path, answer: bytes) -> None:
    path = str(tmp_path / "other")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()

        def serve() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(Unavailable):
            Client(path).get("/v1/status")
        thread.join()


@pytest.mark.parametrize("kind", list(error_classes().values()), ids=lambda kind: kind.code)
def test_every_error_word_has_its_exit_code(tmp_path: Path, kind: type[ValkyrieError]) -> None:
    refuse = RefusedError(400, kind.code, "what happened", "what to do")
    with ctl_with(tmp_path, FakeApi(refuse=refuse)) as ctl:
        result = ctl("status")
    assert result.exit_code == kind.exit_code
    assert result.stderr == "error: what happened\nhint: what to do\n"
    assert kind.exit_code in dict(MEANINGS)


@pytest.mark.parametrize("words", [("limits", "list"), ("limits", "list", "-o", "json")])
def test_a_disk_that_is_full_is_told_without_a_traceback(tmp_path: Path, words: tuple[str, ...]) -> None:
    with ctl_with(tmp_path) as ctl, Path("/dev/full").open("wb") as full:
        process = ctl.process(*words, stdout=full, stderr=subprocess.PIPE)
        told = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 1
    assert told.startswith("error: the output cannot be written: No space left on device\nhint: ")
    assert "Traceback" not in told
    assert "Exception" not in told


def test_the_place_of_wrong_input_is_kept() -> None:
    error = error_from(
        400, b'{"error": {"code": "invalid", "what": "w", "hint": "h", "where": "limits[2].rate"}}'
    )
    assert isinstance(error, InvalidInput)
    assert error.where == "limits[2].rate"


def test_words_of_a_later_version_are_plain_errors() -> None:
    error = error_from(404, b'{"error": {"code": "eaten", "what": "w"}}')
    assert type(error) is ValkyrieError
    assert (error.what, error.exit_code) == ("w", 1)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"error": 1}', b'{"error": {"code": "x"}}', b"\xff"]
)
def test_an_error_without_words_still_says_something(body: bytes) -> None:
    assert "HTTP 500" in error_from(500, body).what


def test_unknown_routes_are_refused_by_the_fake(tmp_path: Path) -> None:
    with ctl_with(tmp_path) as ctl, pytest.raises(NotFound, match="/v1/nothing"):
        Client(str(ctl.socket)).get("/v1/nothing")
