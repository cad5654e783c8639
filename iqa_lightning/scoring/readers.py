"""All readers by name, and how one is built."""

from iqa_lightning.scoring.building import drop_text_encoders, named
from iqa_lightning.scoring.clip_readers import PromptedReader, SentenceReader, ZeroShotReader
from iqa_lightning.scoring.feature_readers import (
    AffineReader,
    CosineReader,
    EmbeddingReader,
    MapReader,
    NormsReader,
    RegressionReader,
    TrunkReader,
)
from iqa_lightning.scoring.reader import Description, Reader

READERS: dict[str, type[Reader]] = {
    "affine": AffineReader,
    "cosine": CosineReader,
    "embedding": EmbeddingReader,
    "map": MapReader,
    "norms": NormsReader,
    "prompted": PromptedReader,
    "regression": RegressionReader,
    "sentence": SentenceReader,
    "trunk": TrunkReader,
    "zero_shot": ZeroShotReader,
}


def build_reader(description: Description) -> Reader:
    """A reader with random weights.

    Raises:
        ValueError: a description that no version of this package wrote.
    """
    kind, options = named(description, "reader", READERS)
    reader = READERS[kind](**options).eval().requires_grad_(False)
    drop_text_encoders(reader)
    return reader
