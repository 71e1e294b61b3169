"""Fenced code blocks of Markdown, line by line. Pure."""

from __future__ import annotations

import re
from typing import Final

#: A line that opens or closes a code block; one with a further backtick is code within a line.
FENCE: Final = re.compile(r"^[ \t]*(`{3,}(?=[^`\n]*$)|~{3,})[^\n]*$", re.MULTILINE)


def fence_after(line: str, opened: str | None) -> str | None:
    """Return the marker of the code block that is open after `line`, if `opened` was before it."""
    fence = FENCE.match(line)
    if fence is None:
        return opened
    if opened is None:
        return fence[1]
    return None if fence[1].startswith(opened) and line.strip() == fence[1] else opened
