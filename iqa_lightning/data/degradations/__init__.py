"""Image degradations: kinds with a strength, chains of them, and spaces that chains are drawn from."""
