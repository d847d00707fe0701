# SPDX-License-Identifier: Apache-2.0
"""Credentials at rest: what a thief, a crash or a mistake with the files can and cannot do."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.ctl import ROOT
from valkyrie.adapters.secrets import Secret
from valkyrie.control.credentials.keyring import (
    DamagedError,
    Keyring,
    WrongKeyError,
    decrypt_text,
    encrypt_text,
    key_id,
    text_key_id,
)
from valkyrie.control.credentials.records import PREVIOUS
from valkyrie.control.credentials.vault import Vault
from valkyrie.control.credentials.words import checked_name, checked_value, without_newline
from valkyrie.control.errors import Conflict, InvalidInput, NotFound, StateError, ValkyrieError

PASSWORD = b"correct horse battery staple"
NOW = 1_700_000_000.0


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path, None, os.urandom)


def value(vault: Vault, name: str) -> bytes:
    found = vault.get(name)
    assert found is not None
    return found.reveal()


def rows(folder: Path) -> Any:
    return json.loads((folder / "credentials.json").read_text())


def write_rows(folder: Path, document: Any) -> None:
    (folder / "credentials.json").write_text(json.dumps(document))


def test_what_is_put_is_got_and_lies_encrypted_in_private_files(vault: Vault, tmp_path: Path) -> None:
    assert vault.get("db") is None
    made = vault.put("db", PASSWORD, NOW)
    assert (made.reveal(), made.version) == (PASSWORD, 1)
    assert value(Vault(tmp_path, None, os.urandom), "db") == PASSWORD
    assert sorted(file.name for file in tmp_path.iterdir()) == ["credentials.json", "master.key"]
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
        assert PASSWORD not in file.read_bytes()
        assert base64.b64encode(PASSWORD)[:8] not in file.read_bytes()


def test_a_new_version_keeps_the_last_two_and_no_more(vault: Vault) -> None:
    for number in range(5):
        vault.put("db", b"password %d" % number, NOW + number)
    found = vault.get("db")
    assert found is not None
    assert (found.version, found.reveal()) == (5, b"password 4")
    assert [(old.version, old.reveal()) for old in found.previous] == [(4, b"password 3"), (3, b"password 2")]
    assert len(vault.records()["db"].versions) == 1 + PREVIOUS


def test_what_is_deleted_is_gone(vault: Vault) -> None:
    vault.put("db", PASSWORD, NOW)
    vault.delete("db")
    assert vault.get("db") is None
    with pytest.raises(NotFound):
        vault.delete("db")


def test_records_cannot_be_swapped_among_names(vault: Vault, tmp_path: Path) -> None:
    vault.put("admin", PASSWORD, NOW)
    vault.put("guest", b"guest", NOW)
    document = rows(tmp_path)
    held = document["records"]
    held["admin"], held["guest"] = held["guest"], held["admin"]
    write_rows(tmp_path, document)
    for name in ("admin", "guest"):
        with pytest.raises(DamagedError, match=f"credential {name}"):
            vault.get(name)


def test_an_old_version_cannot_be_passed_off_as_the_new_one(vault: Vault, tmp_path: Path) -> None:
    vault.put("db", b"leaked", NOW)
    vault.put("db", PASSWORD, NOW)
    document = rows(tmp_path)
    new, old = document["records"]["db"]
    document["records"]["db"] = [{**new, "box": old["box"]}, old]
    write_rows(tmp_path, document)
    with pytest.raises(DamagedError):
        vault.get("db")


def test_any_changed_byte_of_a_box_is_noticed(vault: Vault, tmp_path: Path) -> None:
    vault.put("db", PASSWORD, NOW)
    document = rows(tmp_path)
    box = base64.b64decode(document["records"]["db"][0]["box"])
    for place in range(len(box)):
        wrong = bytearray(box)
        wrong[place] ^= 0x80
        document["records"]["db"][0]["box"] = base64.b64encode(wrong).decode()
        write_rows(tmp_path, document)
        with pytest.raises(DamagedError):
            vault.get("db")


def test_a_file_cut_off_anywhere_is_a_clear_error(vault: Vault, tmp_path: Path) -> None:
    vault.put("db", PASSWORD, NOW)
    whole = (tmp_path / "credentials.json").read_bytes()
    for length in range(len(whole) - 2):
        (tmp_path / "credentials.json").write_bytes(whole[:length])
        with pytest.raises(StateError, match="is damaged"):
            vault.get("db")
        with pytest.raises(StateError):
            vault.put("db", b"x", NOW)  # what may still be saved is not written over


@given(noise=st.one_of(st.binary(max_size=60), st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["format", "records", "db", "version", "created", "key", "box"]), inner, max_size=4
    ),
).map(lambda tree: json.dumps(tree).encode())))  # fmt: skip
def test_a_file_of_anything_is_empty_or_a_clear_error(
    noise: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("noise")
    (folder / "credentials.json").write_bytes(noise)
    with contextlib.suppress(StateError):
        assert not Vault(folder, None, os.urandom).records()


def test_another_master_key_is_said_to_be_that_and_setting_anew_is_the_way_out(
    vault: Vault, tmp_path: Path
) -> None:
    vault.put("db", PASSWORD, NOW)
    (tmp_path / "master.key").write_bytes(base64.b64encode(os.urandom(32)))
    with pytest.raises(WrongKeyError, match="another master key"):
        vault.get("db")
    with pytest.raises(WrongKeyError):
        vault.rekey(())
    made = vault.put("db", b"new", NOW)
    assert (made.version, made.previous) == (2, ())
    assert value(vault, "db") == b"new"


def test_a_missing_master_key_is_not_made_anew_while_there_are_records(vault: Vault, tmp_path: Path) -> None:
    vault.put("db", PASSWORD, NOW)
    (tmp_path / "master.key").unlink()
    for work in (lambda: vault.get("db"), lambda: vault.put("db", b"x", NOW), lambda: vault.encrypt(b"x")):
        with pytest.raises(StateError, match="the master key is missing"):
            work()
    assert not (tmp_path / "master.key").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_master_key_that_others_can_read_is_refused_with_the_chmod_to_run(
    vault: Vault, tmp_path: Path, mode: int
) -> None:
    vault.put("db", PASSWORD, NOW)
    (tmp_path / "master.key").chmod(mode)
    with pytest.raises(StateError) as caught:
        vault.get("db")
    assert f"chmod 600 {tmp_path / 'master.key'}" in caught.value.hint


def test_a_master_key_that_is_a_link_or_no_file_is_refused(vault: Vault, tmp_path: Path) -> None:
    vault.put("db", PASSWORD, NOW)
    key = tmp_path / "master.key"
    key.rename(tmp_path / "elsewhere")
    key.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError):
        vault.get("db")
    key.unlink()
    os.mkfifo(key, 0o600)
    with pytest.raises(StateError, match="no") as caught:
        vault.get("db")
    assert "regular file" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"short", base64.b64encode(bytes(31)), b"\xff" * 44])
def test_a_master_key_that_is_none_is_refused_without_being_shown(
    vault: Vault, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "master.key").write_bytes(content)
    (tmp_path / "master.key").chmod(0o600)
    with pytest.raises(StateError, match="does not hold master keys") as caught:
        vault.put("db", PASSWORD, NOW)
    assert not content or content.decode(errors="replace") not in str(caught.value)


def test_systemds_key_comes_first_and_the_files_records_move_to_it(vault: Vault, tmp_path: Path) -> None:
    vault.put("db", PASSWORD, NOW)
    given, key = tmp_path / "given", os.urandom(32)
    given.mkdir()
    (given / "valkyrie-master-key").write_bytes(base64.b64encode(key))
    under = Vault(tmp_path, given, os.urandom)
    assert value(under, "db") == PASSWORD
    assert under.settle(())
    assert not (tmp_path / "master.key").exists()
    assert {version.box.key for version in under.records()["db"].versions} == {key_id(key)}
    assert not under.settle(())
    with pytest.raises(Conflict) as caught:
        under.rekey(())
    assert "valkyrie-master-key" in caught.value.hint

    new = os.urandom(32)
    (given / "valkyrie-master-key").write_bytes(base64.b64encode(new) + b"\n" + base64.b64encode(key))
    assert under.settle(())
    (given / "valkyrie-master-key").write_bytes(base64.b64encode(new))
    assert value(under, "db") == PASSWORD


def test_a_new_master_key_reads_all_and_the_old_one_nothing(vault: Vault, tmp_path: Path) -> None:
    vault.put("db", b"old", NOW)
    vault.put("db", PASSWORD, NOW)
    before = (tmp_path / "master.key").read_bytes()
    current = vault.rekey(())
    assert vault.key_ids() == (current,)
    found = vault.get("db")
    assert found is not None
    assert (found.reveal(), found.previous[0].reveal(), found.version) == (PASSWORD, b"old", 2)
    (tmp_path / "master.key").write_bytes(before)
    with pytest.raises(WrongKeyError):
        vault.get("db")


def test_a_key_that_the_settings_still_need_is_kept_and_goes_when_they_do_not(vault: Vault) -> None:
    text = vault.encrypt(PASSWORD)
    old = text_key_id(text)
    assert old is not None
    vault.rekey({old})
    assert vault.open_encrypted(text).reveal() == PASSWORD
    vault.settle(())
    with pytest.raises(WrongKeyError):
        vault.open_encrypted(text)


STOPPED = """
import os, sys
from pathlib import Path
from valkyrie.control.credentials import files
from valkyrie.control.credentials.vault import Vault
steps = int(sys.argv[2])
def counted(call):
    def wrapped(*args, **kwargs):
        global steps
        if steps == 0:
            os.kill(os.getpid(), 9)
        steps -= 1
        return call(*args, **kwargs)
    return wrapped
for name in ("open", "fsync", "fdopen"):
    setattr(files.os, name, counted(getattr(os, name)))
Path.replace, Path.unlink = counted(Path.replace), counted(Path.unlink)
Vault(Path(sys.argv[1]), None, os.urandom).rekey(())
"""


def test_a_rekey_that_is_killed_at_any_step_leaves_all_readable(tmp_path: Path) -> None:
    """kill -9 before each system call that changes a file, in turn, until one run ends by itself."""
    for step in range(100):
        folder = tmp_path / str(step)
        vault = Vault(folder, None, os.urandom)
        vault.put("db", b"old", NOW)
        vault.put("db", PASSWORD, NOW)
        ended = subprocess.run(
            [sys.executable, "-c", STOPPED, str(folder), str(step)],
            check=False, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT / ".src")},
        )  # fmt: skip
        assert value(vault, "db") == PASSWORD
        vault.settle(())
        found = vault.get("db")
        assert found is not None
        assert [one.reveal() for one in (found, *found.previous)] == [PASSWORD, b"old"]
        assert len(vault.key_ids()) == 1
        assert value(vault, "db") == PASSWORD
        if ended.returncode == 0:
            assert step > 10
            return
    pytest.fail("the rekey never ended")


def test_a_disk_that_is_full_leaves_what_was(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.put("db", PASSWORD, NOW)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for work in (lambda: vault.put("db", b"x", NOW), lambda: vault.rekey(())):
            with pytest.raises(StateError, match="No space left"):
                work()
    assert value(vault, "db") == PASSWORD
    assert sorted(file.name for file in tmp_path.iterdir()) == ["credentials.json", "master.key"]


def test_what_a_crash_left_half_written_is_in_nobodys_way(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "credentials.json.new").write_text("half")
    (tmp_path / "credentials.json.new").chmod(0o666)
    vault.put("db", PASSWORD, NOW)
    assert value(vault, "db") == PASSWORD
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600


def test_there_is_room_for_so_many_and_no_more(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valkyrie.control.credentials.records.MAX_RECORDS", 2)
    vault.put("a", b"1", NOW)
    vault.put("b", b"1", NOW)
    vault.put("b", b"2", NOW)
    with pytest.raises(Conflict):
        vault.put("c", b"1", NOW)


def test_encrypted_text_opens_and_says_nothing(vault: Vault) -> None:
    text = vault.encrypt(PASSWORD)
    assert vault.open_encrypted(text).reveal() == PASSWORD
    assert vault.encrypt(PASSWORD) != text
    assert PASSWORD.decode() not in text


@given(data=st.data())
def test_encrypted_text_that_was_changed_never_opens(data: st.DataObject) -> None:
    ring = Keyring((bytes(32),))
    text = encrypt_text(ring, PASSWORD, os.urandom)
    place = data.draw(st.integers(0, len(text) - 1))
    wrong = text[:place] + data.draw(st.characters().filter(lambda c: c != text[place])) + text[place + 1 :]
    with pytest.raises(ValkyrieError) as caught:
        decrypt_text(ring, wrong)
    assert PASSWORD.decode() not in str(caught.value)


def test_text_that_is_a_bare_password_is_refused_without_being_shown(vault: Vault) -> None:
    vault.put("db", PASSWORD, NOW)
    for text in ("hunter2", "valkyrie1:hunter2:hunter2", "valkyrie1:0123456789abcdef:aHVudGVyMg=="):
        with pytest.raises(InvalidInput) as caught:
            vault.open_encrypted(text)
        assert "hunter2" not in str(caught.value)


def test_a_secret_does_not_show_itself(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(b"hunter2", 3, (Secret(b"hunter1", 2),))
    logging.getLogger("test").warning("%s %r %s", secret, secret, {"a": [secret]})
    shown = f"{secret} {secret!r} {secret:>30} {[secret]} {caplog.text} {dir(secret)}"
    assert "hunter" not in shown
    assert "version=3" in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(secret)
    assert "hunter" not in repr(Keyring((b"hunter2" * 4,)))


@pytest.mark.parametrize("name", ["", "-a", ".a", "Abc", "a" * 64, "a/b", "a b", "a\n", "ä"])
def test_a_name_that_is_none_is_refused_and_not_shown(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked_name(name)
    assert len(name) < 2 or name not in str(caught.value)


def test_a_value_has_bounds_and_loses_one_line_end() -> None:
    assert checked_value(b"x" * 4096)
    for wrong in (b"", b"x" * 4097):
        with pytest.raises(InvalidInput):
            checked_value(wrong)
    ends = {b"a": b"a", b"a\n": b"a", b"a\r\n": b"a", b"a\n\n": b"a\n", b" a ": b" a ", b"a\r": b"a\r"}
    assert {given: without_newline(given) for given in ends} == ends
