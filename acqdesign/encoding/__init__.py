"""How k-space is sampled: trajectories, NUFFT, density and encoding operators."""
