"""Notes in a wheel the commit that it is built from."""

import subprocess
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Commit(BuildHookInterface):
    """Adds `iqa_lightning/built_from.txt` where the sources are a repository of their own."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict) -> None:
        """Ask git, and leave the file out where it does not know."""
        if version == "editable":
            return
        root = Path(self.root)

        def git(*words: str) -> str:
            ask = ["git", "-C", str(root), *words]
            return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()

        try:
            if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
                return
            commit = git("describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*")
        except (OSError, subprocess.CalledProcessError):
            return
        self.note = tempfile.NamedTemporaryFile("w", suffix=".txt")  # noqa: SIM115  # until the build ends
        self.note.write(f"{commit}\n")
        self.note.flush()
        build_data["force_include"][self.note.name] = "iqa_lightning/built_from.txt"
