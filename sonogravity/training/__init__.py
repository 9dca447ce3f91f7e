"""One training run: start and resume, epochs, losses, schedules, memory, several processes."""
