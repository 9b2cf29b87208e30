"""From columns of any type to features: steps that are fitted on training rows and applied to all others."""
