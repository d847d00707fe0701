# SPDX-License-Identifier: Apache-2.0
"""Settings: defaults, and how every kind of mistake is named."""

from pathlib import Path

import pytest

from valkyrie.control.config import Settings, load_settings, parse_settings
from valkyrie.control.errors import InvalidInput


def refused(text: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_settings(text.encode(), "valkyrie.yaml")
    return caught.value


def test_no_file_means_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VALKYRIE_CONFIG", raising=False)
    monkeypatch.setattr("valkyrie.control.config.DEFAULT_PATH", Path("/nonexistent/valkyrie.yaml"))
    settings = load_settings()
    assert settings == Settings()
    assert settings.table.buckets == 1 << 20
    assert settings.malformed == "drop"
    assert settings.database == Path("/var/lib/valkyrie/state.db")


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(f"state_dir: {tmp_path}\ntable:\n  buckets: 4096\n")
    monkeypatch.setenv("VALKYRIE_CONFIG", str(file))
    assert load_settings().state_dir == tmp_path
    assert load_settings().table.buckets == 4096


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_settings(tmp_path / "none.yaml")
    assert "none.yaml" in caught.value.what


def test_an_empty_file_means_the_defaults() -> None:
    assert parse_settings(b"# nothing said\n", "valkyrie.yaml") == Settings()


def test_an_unknown_key_is_named_with_line_and_what_is_known() -> None:
    error = refused("log: info\ntable:\n  buckets: 4096\n  bukets: 7\n")
    assert error.where == "line 4, field table.bukets"
    assert "unknown setting table.bukets" in error.what
    assert "buckets, full" in error.hint


def test_a_wrong_value_is_named_with_line_and_field() -> None:
    error = refused("log: info\n\nmalformed: maybe\n")
    assert error.where == "line 3, field malformed"
    assert "drop" in error.what


def test_a_table_size_that_is_no_power_of_two_gets_two_that_are() -> None:
    error = refused("table: {buckets: 5000}\n")
    assert error.where == "line 1, field table.buckets"
    assert "4096 or 8192" in error.what


def test_a_wrong_prefix_in_protect_is_told_with_the_right_one() -> None:
    error = refused("protect:\n  - 192.0.2.1\n  - 10.0.0.1/8\n")
    assert error.where == "line 3, field protect[1]"
    assert "10.0.0.0/8" in error.what


def test_protected_prefixes_become_canonical_and_sorted() -> None:
    settings = parse_settings(b"protect: [2001:DB8:0::/32, 192.0.2.1]\n", "valkyrie.yaml")
    assert settings.protect == ("192.0.2.1/32", "2001:db8::/32")


def test_a_relative_path_is_refused() -> None:
    assert refused("socket: run/v.sock\n").where == "line 1, field socket"


def test_a_key_given_twice_is_an_error_with_its_line() -> None:
    error = refused("log: info\nlog: debug\n")
    assert error.where == "line 2"


@pytest.mark.parametrize("text", ["log: [info\n", "\tlog: info\n", "log: 'x\n"])
def test_broken_yaml_is_an_error_with_a_line(text: str) -> None:
    assert refused(text).where.startswith("line ")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "7\n"])
def test_a_document_that_is_no_mapping_is_refused(text: str) -> None:
    assert refused(text).where == "line 1"


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_settings(b"log: \xff\xfe\n", "valkyrie.yaml")
    assert "UTF-8" in caught.value.what


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "huge.yaml"
    with file.open("wb") as out:
        out.truncate(2 << 20)
    with pytest.raises(InvalidInput) as caught:
        load_settings(file)
    assert "larger than" in caught.value.what


def test_the_embedded_store_lies_beside_the_state_unless_told_where(tmp_path: Path) -> None:
    assert Settings(state_dir=tmp_path).store.embedded.path == tmp_path / "store.db"
    told = parse_settings(b"state_dir: /srv/v\nstore: {embedded: {path: /srv/other.db}}", "valkyrie.yaml")
    assert told.store.embedded.path == Path("/srv/other.db")
    assert parse_settings(b"state_dir: /srv/v", "valkyrie.yaml").store.embedded.path == Path(
        "/srv/v/store.db"
    )


def test_a_mistake_in_a_section_that_may_be_true_is_told_by_its_own_name() -> None:
    for line, told in (
        ("{private_key_password: hunter2}", "unknown setting store.redis.tls.private_key_password"),
        ("{ca: 5}", "store.redis.tls.ca: "),
        ("perhaps", "store.redis.tls: "),
    ):
        with pytest.raises(InvalidInput) as caught:
            parse_settings(f"store: {{redis: {{tls: {line}}}}}".encode(), "x.yaml")
        assert caught.value.what.startswith(f"x.yaml: {told}")
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("field", ["credential", "sentinel: {master: m, nodes: [a:1], credential"])
def test_a_password_in_the_place_of_a_credential_s_name_is_refused_unshown(field: str) -> None:
    end = "}" * field.count("{")
    with pytest.raises(InvalidInput) as caught:
        parse_settings(f'store: {{redis: {{{field}: "Hunter2!"{end}}}}}'.encode(), "x.yaml")
    assert "creds set NAME" in caught.value.what
    assert "Hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "field", "told"),
    [
        ("store:\n  redis:\n    url: redis://h:6379/abc\n", 3, "store.redis.url", "number of a database"),
        ("store:\n  redis:\n    url: unix://run/redis.sock\n", 3, "store.redis.url", "absolute path"),
        (
            "store:\n  redis:\n    url: redis://h/2\n    cluster_mode: true\n",
            2,
            "store.redis",
            "database 0 only",
        ),
        ("store:\n  valkey:\n    url: redis://hunter2@h\n", 2, "store.valkey", "creds set"),
        ("store:\n  valkey:\n    url: unix:///run/v.sock\n    tls: true\n", 2, "store.valkey", "Unix socket"),
    ],
)
def test_stores_that_cannot_be_reached_are_refused_with_line_and_field(
    text: str, line: int, field: str, told: str
) -> None:
    error = refused(text)
    assert error.where == f"line {line}, field {field}"
    assert told in str(error)
    assert f"line {line}" in str(error)
    assert "hunter2" not in str(error)


def test_tls_files_are_looked_at_by_who_uses_them(tmp_path: Path) -> None:
    ca, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    tls = f"    tls:\n      ca: {ca}\n      certificate: {ca}\n      private_key: {key}\n"
    file = tmp_path / "valkyrie.yaml"
    file.write_text(f"store:\n  redis:\n    url: rediss://h\n{tls}")
    load_settings(file)
    with pytest.raises(InvalidInput, match="there is no file") as caught:
        load_settings(file, check_files=True)
    assert caught.value.where == "line 5, field store.redis.tls.ca"
    ca.touch()
    key.touch()
    key.chmod(0o644)
    with pytest.raises(InvalidInput, match=f"chmod 600 {key}") as caught:
        load_settings(file, check_files=True)
    assert caught.value.where == "line 7, field store.redis.tls.private_key"
    key.chmod(0o600)
    load_settings(file, check_files=True)
