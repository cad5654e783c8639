"""What the benchmarks share: times side by side, streams of random images, the naive protocol."""
