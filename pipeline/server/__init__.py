"""Who answers: a server that pipeline.toml or an address names, or llama.cpp with a small model, in a child process."""
