"""styleforge: train, measure, invert, edit and analyse style-based generators.

Importing this package does no work and imports nothing heavy; import the floor that you need, for example
``from styleforge.networks import Generator, network_preset``.
"""

__version__ = "0.1.0"
