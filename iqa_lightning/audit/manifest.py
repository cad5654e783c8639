"""The checksums of a data set, written once and compared ever after; `sha256sum -c` reads the file
too.
"""

import hashlib
from pathlib import Path

from iqa_lightning.audit.check import Audit
from iqa_lightning.datasets.samples import Samples
from iqa_lightning.files import write_bytes

TABLE = "# table "


def verify_manifest(audit: Audit, file: Path) -> None:
    """Write the manifest of a data set that has none, else note every difference as an error.

    The first line holds the checksum of the parsed table (images, scores, references); the others
    one image each, relative to the root of the data set. A data set that is not whole gets no
    manifest. Images without files (the embedded ones) have none.
    """
    now = {TABLE: table_checksum(audit.data.samples)} | audit.sha256
    if not file.is_file():
        complete = not any(finding.severity == "error" for finding in audit.findings)
        if complete and audit.sha256:
            lines = [
                f"{TABLE}{now[TABLE]}",
                *(f"{digest}  {image}" for image, digest in sorted(audit.sha256.items())),
            ]
            write_bytes(file, ("\n".join(lines) + "\n").encode())
        audit.facts["manifest"] = "written" if complete and audit.sha256 else "none"
        return
    known = read_manifest(file)
    changed = sorted(image for image in known.keys() & now.keys() if known[image] != now[image])
    lost, added = sorted(known.keys() - now.keys()), sorted(now.keys() - known.keys())
    audit.facts["manifest"] = "differs" if changed or lost or added else "verified"
    for what, images in (("changed", changed), ("missing or unreadable", lost), ("new", added)):
        if images:
            first = "the table" if images[0] == TABLE else repr(images[0])
            audit.note(
                "error",
                f"{len(images)} files are {what} since {file} was written, the first is {first}; "
                "bring back what was "
                f"there, or delete the manifest if the change is meant",
            )


def table_checksum(samples: Samples) -> str:
    """SHA-256 of names, scores and references, in the order of the names."""
    columns = (
        samples.table[name] for name in ("image", "mos", "mos_std", "reference", "distortion")
    )
    lines = sorted(
        "\t".join(map(repr, row))
        for row in zip(*(column.tolist() for column in columns), strict=True)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_manifest(file: Path) -> dict[str, str]:
    """Checksum by image, that of the table under `TABLE`.

    Raises:
        ValueError: naming a line that is not one of a manifest.
    """
    known: dict[str, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        digest, image = (
            (line.removeprefix(TABLE), TABLE) if line.startswith(TABLE) else (line[:64], line[66:])
        )
        if len(digest) != 64 or not image or (image != TABLE and line[64:66] != "  "):
            raise ValueError(
                f"{file}, line {number}: {line!r} is not a checksum and a file; delete the manifest"
            )
        known[image] = digest
    return known
