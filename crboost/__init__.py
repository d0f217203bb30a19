"""From a cryo-ET microscope session to RELION results. The library knows no Prefect."""

__version__ = "0.1.0"
