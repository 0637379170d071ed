"""Runs a converted network: `simulate` is the public function, `engine` does the work."""
