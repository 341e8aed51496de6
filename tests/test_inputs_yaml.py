"""YAML texts as a run's config and as a sweep file: 51 of them, each answered in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from inputs import Row, answer, table

RUN = ("train", "f.yaml", "--run-dir", "run")
BASE = "data_dir: nowhere\n"


def text(content: str | bytes) -> Callable[[Path], object]:
    return lambda box: (box / "f.yaml").write_bytes(content.encode() if isinstance(content, str) else content)


def refused(name: str, content: str | bytes, *says: str) -> Row:
    return Row(name, text(content), RUN, 2, ("f.yaml", *says))


def accepted(name: str, content: str | bytes) -> Row:
    """The YAML is right; what is refused is that there are no data."""
    return Row(name, text(content), RUN, 2, ("nowhere:data_dir: no such folder",))


TAG, DEEP, ZERO = "is not supported", "nests more than 20 deep", "begins with 0"
ROWS = [
    refused("tag int of nothing", "seed: !!int ''", TAG),
    refused("tag float of nothing", "learning_rate: !!float ''", TAG),
    refused("tag bool of a word", "cache: !!bool foo", TAG),
    refused("tag timestamp of a word", "data_dir: !!timestamp foo", TAG),
    refused("tag map of a list", "health: !!map [1]", TAG),
    refused("tag set", "health: !!set {a}", TAG),
    refused("tag omap", "health: !!omap [a: 1]", TAG),
    refused("tag binary", "data_dir: !!binary aGk=", TAG),
    refused("tag null of a word", "data_dir: !!null x", TAG),
    refused("tag of python's apply", "data_dir: !!python/object/apply:os.system [touch owned]", TAG),
    refused("tag of python's name", "data_dir: !!python/name:os.system", TAG),
    refused("tag of one's own", "data_dir: !own x", TAG),
    refused("tag that says nothing", "seed: ! 5", TAG),
    refused("block 500 deep", "\n".join("  " * level + "v:" for level in range(500)), DEEP),
    refused("flow map 2,000 deep", "v: " + "{a: " * 2000 + "1" + "}" * 2000, DEEP),
    refused("flow list 100,000 deep", "v: " + "[" * 100_000, DEEP),
    refused("list of lists, balanced", "v: " + "[" * 400 + "]" * 400, DEEP),
    refused("octal as before", "seed: 010", ZERO, "write 10, or 0o"),
    refused("zeros", "seed: 00", ZERO),
    refused("sexagesimal", "seed: 1:30", "seed", "1:30"),
    refused("20,000 sexagesimal digits", "seed: " + "9" * 20_000 + ":30", "seed"),
    refused("20,000 digits", "seed: " + "9" * 20_000, "seed"),
    refused("anchor that nobody uses", "seed: &a 1", "anchors and aliases"),
    refused("anchor bomb", "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n", "anchors and aliases"),
    refused("merge key", "a: &a {seed: 1}\n<<: *a\n", "anchors and aliases"),
    refused("70,000 unknown keys", "".join(f"k{number}: 1\n" for number in range(70_000)), "20,000 keys"),
    refused("2,000 unknown keys", BASE + "".join(f"k{number}: 1\n" for number in range(2_000)), "and 1,990 more"),
    refused("500,000 numbers in a list", BASE + "validate_at: [" + "1, " * 500_000 + "1]\n"),
    refused("10 MB", BASE + "# " + "x" * 10_000_000, "bytes"),
    refused("several documents", BASE + "---\n" + BASE, "document"),
    refused("a directive", "%YAML 1.1\n---\nseed: 1\n---\nseed: 2\n"),
    refused("a NUL", BASE + "manifest_path: 'a\0b'\n"),
    accepted("a byte-order mark", "\ufeff" + BASE),
    refused("a tab", "health:\n\tgrace_epochs: 2\n"),
    refused("a duplicate key", BASE + "seed: 1\nseed: 2\n", "seed"),
    refused("a list as key", "[a, b]: 1\n"),
    refused("a mapping as key", "{a: 1}: 1\n"),
    refused("a number beyond float", BASE + "learning_rate: 1e400\n", "learning_rate"),
    refused("not a number", BASE + "learning_rate: .nan\n", "learning_rate"),
    refused("infinite", BASE + "learning_rate: .inf\n", "learning_rate"),
    refused("empty", "", "is empty", "lam init"),
    refused("a list", "- seed\n- 1\n", "mapping"),
    refused("a word", "seed\n", "mapping"),
    refused("not UTF-8", b"data_dir: \xff\xfe\xfa\n", "UTF-8"),
    refused("UTF-16", BASE.encode("utf-16")),
    refused("open quote", "data_dir: 'x\n"),
    refused("escape sequences in a key", '"\\e]0;OWN\\a": 1\n', "unknown key"),
    accepted("an exponent without a point", BASE + "learning_rate: 1e-4\n"),
    refused("no, where a word is meant", BASE + "quantizer: no\n", "quantizer", "'no'"),
    refused("a surrogate", BASE + '"\\ud800": 1\n'),
    accepted("Windows' line ends", BASE.replace("\n", "\r\n") + "seed: 3\r\n"),
]


@table(ROWS)
def test_a_yaml_text_is_a_config_or_is_refused_in_words(row: Row, tmp_path: Path) -> None:
    answer(tmp_path, row)


def test_so_many_were_tried() -> None:
    assert len(ROWS) == 51
