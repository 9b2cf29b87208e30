"""From tables to the arrays that trainings read."""
