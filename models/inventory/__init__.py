"""The inventory: schema, loading, validation, tool policy, scaffold."""
