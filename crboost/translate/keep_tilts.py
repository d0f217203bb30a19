"""Leaving tilt images out of what Warp makes: UseTilt in the XML of a tilt series.

Also a program, for between two commands of WarpTools:
`python -m crboost.translate.keep_tilts FROM.xml TO.xml -- NAME...`. It exits 0 when the file is
written, 2 when it cannot be.
"""

from __future__ import annotations

import argparse
import sys
import xml.etree.ElementTree as ET
from collections.abc import Collection, Sequence
from pathlib import Path

from crboost.errors import CrboostError, FileFormatError
from crboost.translate.warp_tilt_series import read_warp_tilt_series
from crboost.translate.warp_xml import WarpXml, write_xml


def keep_tilts(source: Path, target: Path, names: Collection[str]) -> None:
    """Copy a tilt series' XML with `UseTilt` true for these tilt images only, else unchanged.

    This is how a rejected tilt really leaves Warp's stacks and tomograms.

    Args:
        names: the tilt images to use; each must be in the file.

    Raises:
        FileFormatError: `source` is not such a file, or lacks one of them.
    """
    series = read_warp_tilt_series(source)
    known = {tilt.name for tilt in series.tilts}
    unknown = sorted(set(names) - known)
    if unknown:
        raise FileFormatError(
            source,
            f"has no tilt image {unknown[0]}",
            hint="the tilt images must be those of the same ts_import",
        )
    xml = WarpXml(source, "TiltSeries")
    element = xml.root.find("UseTilt")
    if element is None:
        element = ET.SubElement(xml.root, "UseTilt")
    element.text = "\n".join(str(tilt.name in names) for tilt in series.tilts)
    write_xml(target, xml.root)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m crboost.translate.keep_tilts",
        description="Make Warp use these tilt images of a tilt series, and no others.",
    )
    parser.add_argument("source", type=Path, help="the tilt series' XML")
    parser.add_argument("target", type=Path, help="XML to write")
    parser.add_argument("names", nargs="+", help="tilt images to use")
    given = parser.parse_args(arguments)
    try:
        keep_tilts(given.source, given.target, given.names)
    except (CrboostError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
