"""The scripts of all models: options, scoring, cross-validation, export, comparison."""
