"""The ways to train members; which one a member takes depends on the member alone, never on its neighbours."""
