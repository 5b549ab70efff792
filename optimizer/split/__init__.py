"""How one stage falls into a builder and a runtime stage: a frame, and one strategy module for each ecosystem."""
