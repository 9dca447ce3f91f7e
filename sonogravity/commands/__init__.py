"""What the scripts of all models do: options, scoring, cross-validation, export, comparison."""
