"""Binary spikes in bytes, on a CUDA device."""
