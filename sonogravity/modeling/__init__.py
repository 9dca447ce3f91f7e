"""What every model offers, and the checkpoints that hold one."""
