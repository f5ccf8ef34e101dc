"""Environments that give 64x64 pixels, on the host."""
