"""Real systems for tests to break: the embedded demo and a Docker stack."""
