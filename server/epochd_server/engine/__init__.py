"""The only torch code: cohorts, exact activations, autodiff."""
