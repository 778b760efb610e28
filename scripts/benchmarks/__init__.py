"""What scripts/bench_train times: steps beside nanoGPT's, their floor, and a race of two sweeps."""
