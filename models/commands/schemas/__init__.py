"""Commands made from the JSON Schemas with which workers describe their tasks."""
