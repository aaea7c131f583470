"""Governance of agent actions: pure rules, a store, use cases and the middleware that wraps a run. Knows no Celery."""
