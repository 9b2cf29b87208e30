"""From a request to a plan: every problem found before anything is queued."""
