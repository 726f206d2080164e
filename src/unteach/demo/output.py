"""The output directory of a demo."""

from pathlib import Path

from unteach.pipeline.directory import check_output


def check_demo_output(output: Path) -> bool:
    """Return whether `output` holds an earlier run, which the demo replaces.

    Raises OutputError for a directory that holds anything else, and where nothing may be written.
    """
    overwrite = (output / "run.yaml").exists()
    check_output(str(output), overwrite=overwrite, resume=False)
    return overwrite
