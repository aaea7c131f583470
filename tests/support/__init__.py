"""What the tests share: a governance over a real database, and racing processes."""
