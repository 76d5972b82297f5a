"""Configuration, registries, state trees, random streams, records and files: what every part builds on."""
