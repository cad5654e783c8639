"""Write a finished run as one file: `iqa-lightning export run=<run> output=model.iqa`.

`.iqa` is the model for `score` and `watch`; `.onnx` and `.pt2` take pixels and give scores in other
programs; `.md` is the card. See docs/how-to/score-your-pictures.md.
"""

from iqa_lightning import signals

if __name__ == "__main__":  # before anything that takes time
    signals.install()

from pathlib import Path
from typing import Any

from iqa_lightning.files import write_bytes
from iqa_lightning.scoring.words import needed, run_words

KINDS = (".iqa", ".onnx", ".pt2", ".md")


def main(values: dict[str, Any]) -> int:
    """Write the file that `values` name.

    Raises:
        ValueError: a value is wrong, or the method cannot be exported; nothing was written.
    """
    needed(values, "export", "run", "output")
    # only here, so that --help does not wait for torch
    from iqa_lightning.scoring.card import markdown  # noqa: PLC0415
    from iqa_lightning.scoring.model import BUNDLE, load_model  # noqa: PLC0415
    from iqa_lightning.scoring.tables import check_output  # noqa: PLC0415

    output, run = check_output(str(values["output"]), KINDS), Path(str(values["run"])).expanduser()
    if values["size"] is not None and output.suffix not in (".onnx", ".pt2"):
        raise ValueError(
            f"size={values['size']} is of .onnx and .pt2, and output is {output}: leave it out"
        )
    if output.suffix == BUNDLE and run.is_file():
        raise ValueError(f"run={run} is a bundle already: copy it, or name its run folder")
    model = load_model(run, "cpu")
    if output.suffix == ".md":
        write_bytes(output, markdown(model.card).encode())
    elif output.suffix == BUNDLE:
        from iqa_lightning.scoring.bundle import bundle_of_run  # noqa: PLC0415

        bundle_of_run(run, model, output)
    else:
        from iqa_lightning.scoring.deployed import write_deployed  # noqa: PLC0415

        write_deployed(run, model, output, values["size"])
    print(f"written: {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    run_words(main, "export")
