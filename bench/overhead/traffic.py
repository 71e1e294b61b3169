"""What has gone through NATS servers, as they say themselves."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from typing import Final

FIELDS: Final = ("in_msgs", "out_msgs", "in_bytes", "out_bytes")


def traffic(urls: Sequence[str]) -> dict[str, float]:
    """Return messages and bytes in and out of all servers, between servers included.

    Args:
        urls: of their monitoring pages; asked one after another, so not in the event loop.
    """
    counted = dict.fromkeys(FIELDS, 0.0)
    for url in urls:
        with urllib.request.urlopen(f"{url}/varz", timeout=5) as reply:
            told = json.load(reply)
        for name in FIELDS:
            counted[name] += float(told[name])
    return counted
