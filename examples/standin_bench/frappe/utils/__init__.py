"""Home of ``bench_helper``, the module through which every command is called."""
