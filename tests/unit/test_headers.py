# SPDX-License-Identifier: Apache-2.0
"""The header tree for BCC, and the one text that is compiled."""

from pathlib import Path

import pytest

from valkyrie.control.dataplane import headers, source
from valkyrie.control.errors import DataplaneError, Unavailable


def test_the_tree_has_what_an_xdp_program_includes_and_goes_away() -> None:
    with headers.header_tree() as tree:
        for name in ("linux/if_ether.h", "linux/ip.h", "linux/tcp.h", "asm/types.h", "asm-generic/types.h"):
            assert (tree / "include/uapi" / name).exists(), name
        assert (tree / "include/linux/bpf.h").read_text() == ""
        assert "PAGE_SIZE" in (tree / "include/asm/page.h").read_text()
    assert not tree.exists()


@pytest.mark.parametrize("there", [[], ["asm/types.h"], ["linux/if_ether.h"]])
def test_missing_uapi_headers_name_the_package(tmp_path: Path, there: list[str]) -> None:
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    with pytest.raises(Unavailable) as caught, headers.header_tree(tmp_path):
        pass
    assert "linux-libc-dev" in caught.value.hint


def test_each_own_include_is_expanded_once_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.h").write_text('#include "b.h"\nint a;\n')
    (tmp_path / "b.h").write_text("int b;\n")
    (tmp_path / "m.c").write_text(
        '#include <linux/ip.h>\n#include "a.h"\n  #  include "b.h" /* again */\nint m;\n'
    )
    lines = source.expand(tmp_path / "m.c").splitlines()
    code = [line for line in lines if not line.startswith("#line")]
    assert code == ["#include <linux/ip.h>", "int b;", "int a;", "int m;"]


def test_every_line_keeps_its_file_and_number(tmp_path: Path) -> None:
    (tmp_path / "a.h").write_text("int a1;\nint f(void) {\n  int a3;\n}\n")
    (tmp_path / "m.c").write_text('int m1;\n#include "a.h"\nint m3;\n')
    place = ("", 0)
    found = {}
    for line in source.expand(tmp_path / "m.c").splitlines():
        if line.startswith("#line"):
            _, number, name = line.split()
            place = (name.strip('"'), int(number))
        else:
            found[line.strip()] = place
            place = (place[0], place[1] + 1)
    assert found["int a3;"] == ("a.h", 3)
    assert (found["int m1;"], found["int m3;"]) == (("m.c", 1), ("m.c", 3))


def test_a_missing_own_include_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "m.c").write_text('int m;\n#include "gone.h"\n')
    with pytest.raises(DataplaneError, match=r'm\.c line 2: no file "gone\.h"'):
        source.expand(tmp_path / "m.c")


@pytest.mark.parametrize(("text", "count"), [("0\n", 1), ("0-3\n", 4), ("0-3,8-11\n", 12), ("0,2", 3)])
def test_possible_cpus_count_holes_because_areas_are_indexed(text: str, count: int) -> None:
    assert source.possible_cpus(text) == count


def test_the_digest_changes_with_text_and_with_every_size() -> None:
    one = source.Sizes(64, 256, 2)
    others = [source.Sizes(128, 256, 2), source.Sizes(64, 512, 2), source.Sizes(64, 256, 4)]
    digests = [source.digest("a", sizes) for sizes in [one, *others]] + [source.digest("b", one)]
    assert len(set(digests)) == 5
    assert source.digest("a", source.Sizes(64, 256, 2)) == digests[0]
