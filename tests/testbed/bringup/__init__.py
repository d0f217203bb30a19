"""Brings up a real RELION image, a real Apptainer and a real Slurm. Standard library only."""
