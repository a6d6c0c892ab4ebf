"""Extra links of this provider's tasks."""
