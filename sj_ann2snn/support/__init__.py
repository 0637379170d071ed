"""What every part may lean on: nested values, batches, wording, blame. It knows nothing of spikes."""
