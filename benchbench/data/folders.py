"""Which files in a folder are data, and what is said of the others."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import NoReturn

from benchbench.extension.errors import BadInput

IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
LEFT_BY_SYSTEMS = ("__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir")


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over without a word.

    These are names that begin with a dot, as .DS_Store and macOS's ._1.png do, and what systems
    leave beside files: __MACOSX, Thumbs.db, desktop.ini, $RECYCLE.BIN, @eaDir.
    """
    return name.startswith(".") or name.lower() in LEFT_BY_SYSTEMS


def tell_skipped(skipped: Iterable[str], top: Path) -> None:
    """A warning that counts, by suffix, the files below ``top`` that a reader passed over."""
    paths = [PurePath(path) for path in skipped]
    if not paths:
        return
    counts = Counter(path.suffix.lower() or "without suffix" for path in paths)
    listed = [f"{count:,} {suffix}" for suffix, count in counts.most_common(8)]
    more = f" and {len(counts) - 8} other suffixes" if len(counts) > 8 else ""
    home, most = Counter(path.parent for path in paths).most_common(1)[0]
    place = "" if home == PurePath() else f"; in {home}: {most:,} of {len(paths):,}"
    warnings.warn(
        f"files below {top} are not read, as their names do not end like those of images: "
        f"{', '.join(listed)}{more}{place}",
        stacklevel=2,
    )


def images_below(top: Path) -> list[str]:
    """The paths, from there and sorted, of all files below a folder whose names are of images.

    Links are followed, but not to a folder that they lie in; hidden files are passed over, and
    others counted in a warning. BadInput if there is no such folder, or no image in it.
    """
    if not top.is_dir():
        raise BadInput(f"there is no folder {top}" + (": it is a file" if top.exists() else ""))
    images, skipped = [], []
    for place, below, files in os.walk(top, onerror=_unreadable, followlinks=True):
        here = Path(place)
        below[:] = [n for n in below if not is_hidden(n) and not _climbs(here / n)]
        for name in filter(lambda n: not is_hidden(n), files):
            path = (here / name).relative_to(top).as_posix()
            if name.lower().endswith(IMAGES):
                images.append(path)
            elif (here / name).is_file():  # and no link that leads nowhere
                skipped.append(path)
    tell_skipped(skipped, top)
    if not images:
        raise BadInput(f"no file below {top} has a name that ends in {', '.join(IMAGES)}")
    return sorted(images)


def _climbs(path: Path) -> bool:
    """Whether it is a link to a folder that it lies in, so that following it would never end."""
    return path.is_symlink() and path.resolve() in [p.resolve() for p in path.absolute().parents]


def _unreadable(error: OSError) -> NoReturn:
    raise BadInput(f"the folder {error.filename} cannot be read: {error.strerror}") from error


def check_links(top: Path, files: Mapping[str, str]) -> None:
    """Say what links do to some images: ``files`` are their paths, and where each really lies.

    BadInput if two paths lead to one file; a warning if some lead out of ``top``.
    """
    first: dict[str, str] = {}
    for path, real in files.items():
        if (other := first.setdefault(real, path)) != path:
            raise BadInput(f"{other} and {path} below {top} are one file; remove one of the two")
    home = f"{os.path.realpath(top)}{os.sep}"
    if outside := [path for path, real in files.items() if not real.startswith(home)]:
        warnings.warn(
            f"links lead out of {top} to {len(outside):,} of its {len(files):,} images, such as "
            f"{outside[0]}",
            stacklevel=2,
        )
