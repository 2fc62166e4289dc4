"""From what a dataset plugin describes to rows on the device."""
