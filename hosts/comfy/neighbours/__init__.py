"""Other nodes and samplers that are incompatible: known by name, or found by trial."""
