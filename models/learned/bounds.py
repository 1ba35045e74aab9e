"""Bounds of learning that the settings have too. Imports nothing: whoever reads the settings need not load what learns."""

from __future__ import annotations

#: How sure a model must be to be heard, unless the settings say otherwise.
CONFIDENCE = 0.7
#: Fewer incidents than these say little of the next one.
EXAMPLES_MIN = 50
#: Learned from at most: 20,000 take a minute or two and 200 MB.
EXAMPLES_MAX = 20_000
