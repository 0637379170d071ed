"""Binary spikes in bits, on a CPU."""
