"""Modules that every other package may use: messages, files, devices, worker threads, provenance."""
