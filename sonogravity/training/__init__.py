"""One training run: start or resume, one epoch, losses, schedules, memory, several processes."""
