"""Where cohorts run: worker processes on this machine."""
