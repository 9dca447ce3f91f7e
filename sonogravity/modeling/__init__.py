"""The base class of all models, and checkpoints."""
