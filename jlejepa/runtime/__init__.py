"""What every training job needs, and nothing of RL or self-supervision.

Imports neither `jplanet` nor the rest of `jlejepa`.
"""
