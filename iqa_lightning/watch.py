"""Whether new pictures are like what was learnt: `iqa-lightning watch run=<run> images=<folder>`.

In range, drifting to a learnt data set, or new; for what is new the pictures worth rating
(`label=todo.csv`) and the command that learns them. See docs/how-to/score-your-pictures.md.
"""

from iqa_lightning import signals
from iqa_lightning.files import write_bytes

if __name__ == "__main__":  # before anything that takes time
    signals.install()

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from iqa_lightning.scoring.words import needed, run_words


def main(values: dict[str, Any]) -> int:
    """Compare the pictures that `values` name with what was learnt.

    Raises:
        ValueError: a value is wrong; nothing was written.
    """
    needed(values, "watch", "run", "images")
    # only here, so that --help does not wait for torch
    from iqa_lightning.scoring.images import find_images  # noqa: PLC0415
    from iqa_lightning.scoring.scorer import Scorer  # noqa: PLC0415
    from iqa_lightning.scoring.tables import check_output  # noqa: PLC0415
    from iqa_lightning.scoring.watching import drift_text, look, write_todo  # noqa: PLC0415

    report, label, output = (
        None if values[key] is None else check_output(str(values[key]), (suffix,), key)
        for key, suffix in (("report", ".html"), ("label", ".csv"), ("output", ".json"))
    )
    images = find_images(values["images"])
    usual = None if values["reference"] is None else find_images(values["reference"], "reference")
    scorer = Scorer.load(values["run"], values["device"])
    seen = look(scorer, images, usual)
    print(drift_text(seen))
    if output is not None:
        write_bytes(output, f"{json.dumps(asdict(seen.drift), indent=1)}\n".encode())
        print(f"written: {output}")
    if report is not None:
        from iqa_lightning.scoring.page import write_page  # noqa: PLC0415

        write_page(report, seen.table, scorer)
        print(f"written: {report}")
    if label is not None:
        print(write_todo(label, seen, int(values["count"]), Path(str(values["run"]))))
    return 0


if __name__ == "__main__":
    run_words(main, "watch")
