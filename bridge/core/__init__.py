"""The pure part: no I/O, no clock, no logging. A test enforces it."""
