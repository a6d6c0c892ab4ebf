"""Storage that fails by a seeded schedule."""
