"""The sections that the stages of a run left for its report."""

from __future__ import annotations

from nodelens.experiments.folder import PROVENANCE, RunFolder
from nodelens.report.sections import Section, section_file

__all__ = ["read_sections", "section_digests"]


def read_sections(folder: RunFolder) -> dict[str, Section]:
    """Return the sections of the stages that finished, by stage, in the order they ran.

    A section that an earlier run left in the folder is not among them. Raises OutputError for a
    file that is no section.
    """
    stages = folder.read_json(PROVENANCE)["stages"] if folder.has(PROVENANCE) else {}
    return {
        name: Section.from_plain(folder.read_json(section_file(name)), section_file(name))
        for name, entry in stages.items()
        if entry["status"] == "finished" and section_file(name) in entry["files"]
    }


def section_digests(folder: RunFolder) -> dict[str, str]:
    """Return the digest of every section and of the tables and figures that it shows."""
    names = []
    for stage, section in read_sections(folder).items():
        names += [section_file(stage), *section.files]
        names += [f"{figure.file}{kind}" for figure in section.figures for kind in (".svg", ".png")]
    digests = {name: folder.digest(name) for name in names}
    return {name: digest for name, digest in digests.items() if digest is not None}
