"""A whole local stack as processes: broker, database, workers, beat, Flower."""
