"""Runs a converted network: `simulate` is the door, `engine` the machine behind it."""
