"""Score images with a finished run or a bundle: `iqa-lightning score run=<run> images=<folder>`.

One row an image; see docs/how-to/score-your-pictures.md. Exit status 0, or 3 where an image could
not be read.
"""

from iqa_lightning import signals

if __name__ == "__main__":  # before anything that takes time
    signals.install()

from typing import Any

from iqa_lightning.scoring.words import needed, run_words

UNREADABLE = 3


def main(values: dict[str, Any]) -> int:
    """Score the images that `values` name, and write the table.

    Raises:
        ValueError: a value is wrong; nothing was written.
    """
    needed(values, "score", "run", "images")
    # only here, so that --help does not wait for torch
    from iqa_lightning.scoring.images import find_images  # noqa: PLC0415
    from iqa_lightning.scoring.scorer import Scorer  # noqa: PLC0415
    from iqa_lightning.scoring.tables import (  # noqa: PLC0415
        check_output,
        shown_progress,
        write_table,
    )

    if values["task"] is not None and values["scale"] != "native":
        raise ValueError(
            f"task={values['task']} is read with scale=native alone: add scale=native, or leave it "
            "out"
        )
    output = check_output(str(values["output"]))
    report = (
        None if values["report"] is None else check_output(values["report"], (".html",), "report")
    )
    images = find_images(values["images"])
    scorer = Scorer.load(values["run"], values["device"])
    with shown_progress(len(images)) as advance:
        table = scorer(images, values["scale"], values["task"], advance)
    write_table(table, output)
    print(f"written: {output} ({len(table)} images)")
    if report is not None:
        from iqa_lightning.scoring.page import write_page  # noqa: PLC0415

        write_page(report, table, scorer)
        print(f"written: {report}")
    failed = table[table["error"] != ""]
    if len(failed):
        first = failed.iloc[0]
        print(
            f"{len(failed)} of {len(table)} images could not be read, the first: {first['error']}"
        )
    return UNREADABLE if len(failed) else 0


if __name__ == "__main__":
    run_words(main, "score")
