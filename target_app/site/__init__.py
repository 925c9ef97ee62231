"""The pages: rendered here, usable without scripts, without a single request to anywhere else."""
