"""Folders of buckets (gs://, s3://), mounted. There a file is an object, which appears when the
file is closed, and a folder is a prefix of names, which cannot be renamed in one step.
"""

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/mounts")
# A driver may say no more than "fuse" (gcsfuse on GKE, Mountpoint for S3); those that are file
# systems in full (fuse.sshfs, fuse.juicefs, fuse.fuse-overlayfs) say what they are.
_BUCKETS = re.compile(r"fuse(\.(gcsfuse|s3fs|mount-s3|mountpoint-s3|blobfuse2?|goofys|geesefs))?")


def is_bucket(folder: Path) -> bool:
    """Whether a folder, which need not be there, lies on a mounted bucket."""
    try:
        lines = MOUNTS.read_text("utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return False
    place, kinds = Path(os.path.realpath(folder)), {}  # of links in a circle, too
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        kinds[Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), point))] = kind
    at = next((kinds[above] for above in (place, *place.parents) if above in kinds), "")
    return _BUCKETS.fullmatch(at) is not None
