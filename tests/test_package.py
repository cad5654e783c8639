"""What a plain `pip install` brings: versions that are admitted and locked, licences that permit."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution, metadata

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.walks import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
NOT_INSTALLED = {"dev", "trackio"}
"""Tools that work on the package and are no part of it, and what is not in its lock."""
PERMISSIVE = re.compile(
    r"Apache|\bMIT\b|MIT-CMU|MIT-0|BSD|ISC|PSF|Python Software Foundation|0BSD|Zlib|CC0|BSL-1\.0|"
    r"CNRI-Python|HPND|Unlicense|Public Domain|LLVM-exception|MPL-2\.0|MPL 2\.0"
)
"""Of the Mozilla licence, what is changed of its own files has to stay open: nobody's code."""


def named(requirements: Iterable[str]) -> dict[str, Requirement]:
    """Requirements by name."""
    return {canonicalize_name(one.name): one for one in map(Requirement, requirements)}


def required(extras: Iterable[str]) -> dict[str, Requirement]:
    """What the package requires by itself, without the extras that its extras name."""
    words = [*PROJECT["dependencies"], *(word for extra in extras for word in EXTRAS[extra])]
    return {name: one for name, one in named(words).items() if name != "iqa-lightning"}


def locked() -> dict[str, tuple[set[Version], int]]:
    """Versions by name, and the number of SHA-256 of all."""
    found: dict[str, tuple[set[Version], int]] = {}
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, version = re.match(r"([\w.-]+)==([\w.]+)", line).groups()
            versions, hashes = found.get(canonicalize_name(name), (set(), 0))
            count = len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", line))
            assert count, line
            found[canonicalize_name(name)] = versions | {Version(version)}, hashes + count
    return found


def licence(name: str) -> str:
    """What the metadata of an installed package say."""
    said = metadata(name)
    classes = [
        line.rpartition(" :: ")[2]
        for line in said.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    return said["License-Expression"] or "; ".join(classes) or (said["License"] or "")[:60]


def everything(extras: Iterable[str]) -> Iterator[str]:
    """All that is installed because the package requires it, through others too."""
    todo = list(required(extras).values())
    seen: dict[str, set[str]] = {}
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        if name in seen and one.extras <= seen[name]:
            continue
        seen[name] = seen.get(name, set()) | one.extras
        try:
            found = distribution(one.name).requires or []
        except PackageNotFoundError:  # an extra that is not there, another system's
            continue
        yield name
        todo += [
            more
            for more in map(Requirement, found)
            if more.marker is None
            or any(more.marker.evaluate({"extra": extra}) for extra in one.extras | {""})
        ]


def page() -> dict[str, str]:
    """The table of exceptions of docs/licences.md: why, by package or `<prefix>*`."""
    text = (ROOT / "docs" / "licences.md").read_text().partition("## Exceptions")[2]
    return dict(re.findall(r"^\| `([\w*-]+)` \| (.+) \|$", text, re.MULTILINE))


def permits(said: str) -> bool:
    """Whether a licence is known to permit use, change and sale, and none of a choice forbids it."""
    refused = r"GPL|General Public|Non-?Commercial|-NC\b|Proprietary|Other"
    return bool(PERMISSIVE.search(said)) and not re.search(refused, said)


def test_one_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert cited == PROJECT["version"]


def test_pythons_are_those_that_the_bound_admits() -> None:
    stated = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert stated[0] == PROJECT["requires-python"].removeprefix(">=")
    assert stated == [f"3.{11 + i}" for i in range(len(stated))]


def test_the_lock_holds_what_is_required() -> None:
    lock = locked()
    for name, one in required(EXTRAS.keys() - {"trackio"}).items():
        versions, _ = lock[name]
        assert all(one.specifier.contains(version) for version in versions), name


def test_releases_that_break_are_kept_out() -> None:
    """Announced: Hydra 1.4 with OmegaConf 2.4, and major versions to come."""
    admitted = required([])
    for name, kept_out in (
        ("hydra-core", "1.4.0"),
        ("omegaconf", "2.4.0"),
        ("pytorch-lightning", "2.7.0"),
        ("open-clip-torch", "4.0.0"),
    ):
        assert not admitted[name].specifier.contains(kept_out), name


def test_every_licence_permits() -> None:
    exceptions = page()
    for name in sorted(set(everything(EXTRAS.keys() - NOT_INSTALLED))):
        if any(re.fullmatch(key.replace("*", ".*"), name) for key in exceptions):
            continue
        assert permits(licence(name)), (
            f"{name}: {licence(name)!r}: leave it out, or say in docs/licences.md why it may stay"
        )


def test_a_licence_that_does_not_permit_is_seen() -> None:
    for said in (
        "GPL-3.0-only",
        "GNU Affero General Public License v3",
        "CC-BY-NC-4.0",
        "UNKNOWN",
        "",
    ):
        assert not permits(said), said
    for said in ("MIT", "Apache-2.0 OR BSD-2-Clause", "Mozilla Public License 2.0 (MPL 2.0)"):
        assert permits(said), said


def test_the_page_lists_what_the_package_requires() -> None:
    """Each direct dependency with the licence of its metadata, shortened."""
    text = (ROOT / "docs" / "licences.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| ([\w.-]+) \|", text, flags=re.MULTILINE))
    assert rows.keys() == required(EXTRAS.keys() - {"dev"}).keys()
    for name in required(EXTRAS.keys() - NOT_INSTALLED).keys() - page().keys():
        family = rows[name].split("-")[0].replace("PSF", "Python Software")
        assert family in licence(name), f"{name}: {licence(name)}"
