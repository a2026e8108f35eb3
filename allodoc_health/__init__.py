"""The engine: targets, probes, evidence, findings, verdict, remedies, and the pytest plugin that joins them."""
