"""What `make gpu-check` does on a machine with a Hopper GPU; see bench/gpu_check.py."""
