"""Engines that run a net or parts of it: torch.compile, OpenVINO, CUDA graphs."""
