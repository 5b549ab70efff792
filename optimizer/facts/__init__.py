"""Facts: what the Dockerfile, the build context and the base images tell, each with the line that says so."""

from optimizer.facts.facts import Facts

__all__ = ["Facts"]
