"""Images that have to stay in one part: a proposal from what looks alike; sets that share
contents.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iqa_lightning.audit.check import Audit, Finding
from iqa_lightning.audit.duplicates import Duplicate
from iqa_lightning.datasets.ratings import cell
from iqa_lightning.files import write_bytes


def proposed_groups(audit: Audit, duplicates: Sequence[Duplicate]) -> dict[str, str]:
    """The group of each image of a data set, contents that look alike being one group.

    A group is called by the first of its contents; the table's own groups are never parted.
    """
    table = audit.data.samples.table
    reference = dict(zip(table["image"], table["reference"], strict=True))
    leader = {name: name for name in reference.values()}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for pair in duplicates:
        if pair.datasets == (audit.name, audit.name) and not pair.waived:
            first, second = sorted(find(reference[image]) for image in pair.images)
            leader[second] = first
    return {image: find(name) for image, name in reference.items()}


def write_groups(file: Path, audits: Sequence[Audit], duplicates: Sequence[Duplicate]) -> int:
    """Write the proposal for `group_file=`: columns dataset, image, group, all images.

    Returns:
        How many groups are of contents that were several.
    """
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["dataset", "image", "group"])
    joined = 0
    for audit in audits:
        if not audit.facts:
            continue
        groups = proposed_groups(audit, duplicates)
        out.writerows([audit.name, cell(image), cell(group)] for image, group in groups.items())
        before = audit.data.samples.table["reference"]
        contents: dict[str, set[str]] = {}
        for name, group in zip(before, groups.values(), strict=True):
            contents.setdefault(group, set()).add(name)
        joined += sum(len(names) > 1 for names in contents.values())
    write_bytes(file, text.getvalue().encode())
    return joined


def check_families(audits: Sequence[Audit], families: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """A warning for data sets of a stream that were made from the same pictures.

    Args:
        audits: the sets; one is known by its name or by that of its class.
        families: `sets`, two names, and `share`, what they have in common.
    """
    found = []
    names = [{plain(audit.name), plain(audit.data.default_name())} for audit in audits]
    for family in families:
        members = [
            next(
                (
                    audit.name
                    for audit, known in zip(audits, names, strict=True)
                    if plain(name) in known
                ),
                None,
            )
            for name in family["sets"]
        ]
        if all(members):
            listed = " and ".join(str(name) for name in members)
            found.append(
                Finding(
                    "warning",
                    "+".join(str(name) for name in members),
                    f"{listed} share contents: {family['share']}; what one of them tests, the "
                    "other may teach: leave one out, or report them apart",
                )
            )
    return found


def plain(name: str) -> str:
    """A name without what is written differently from place to place."""
    return re.sub(r"[\W_]", "", name).casefold()
