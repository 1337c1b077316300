"""Other nodes and samplers that cannot go along: known by name, or found by trial."""
