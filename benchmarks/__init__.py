"""Speed of the hot loops beside the peers'; `benchmarks/README.md` says how."""
