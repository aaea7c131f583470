"""The Celery shell: knows Celery, decides nothing."""
