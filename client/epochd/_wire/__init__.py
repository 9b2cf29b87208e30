"""Between Python values and messages: pure conversions, no I/O."""
