"""Proof: both images are built, run, measured and compared, and only the rewrites that hold are kept."""
