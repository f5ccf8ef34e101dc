"""LeJEPA in JAX: self-supervised learning with SIGReg."""
