"""What the benchmarks of all stores share: fleets of processes, sizes, tables, and the workloads' skeletons."""
